import Testing

@testable import PostgresClient

@Suite struct HostOrderTests {
    @Test func untriedHostsComeInTheirOrder() {
        #expect(HostOrder(count: 3).attempt == [0, 1, 2])
        #expect(HostOrder(count: 0).attempt == [])
    }

    @Test func theHostThatWorkedLastIsFirst() {
        var order = HostOrder(count: 3)
        var isAnother = order.worked(2)
        #expect(isAnother)
        #expect(order.current == 2 && order.attempt == [2, 0, 1])
        isAnother = order.worked(2)
        #expect(!isAnother)
        isAnother = order.worked(1)
        #expect(isAnother)
        #expect(order.attempt == [1, 0, 2])
    }

    @Test func noAttemptBeginsWithTheHostThatFailedLast() {
        var order = HostOrder(count: 3)
        _ = order.worked(0)
        order.failed(0)
        #expect(order.attempt == [1, 2, 0])
        order.failed(1)
        #expect(order.attempt == [2, 0, 1], "what failed is tried again in the order of its failures")
        order.failed(2)
        #expect(order.attempt == [0, 1, 2])
        order.failed(0)
        #expect(order.attempt == [1, 2, 0])
        _ = order.worked(2)
        #expect(order.attempt == [2, 1, 0])
        _ = order.worked(1)
        #expect(order.attempt == [1, 2, 0], "a failure counts until the host works again")
    }

    /// Every sequence of six events at three hosts.
    @Test func everyAttemptTriesEveryHostOnce() {
        func walk(_ order: HostOrder, _ last: (host: Int, failed: Bool)?, _ depth: Int) {
            let attempt = order.attempt
            #expect(attempt.sorted() == [0, 1, 2])
            if let last {
                if last.failed { #expect(attempt.first != last.host) } else { #expect(attempt.first == last.host) }
            }
            guard depth > 0 else { return }
            for host in 0..<3 {
                var (worked, failed) = (order, order)
                _ = worked.worked(host)
                failed.failed(host)
                walk(worked, (host, false), depth - 1)
                walk(failed, (host, true), depth - 1)
            }
        }
        walk(HostOrder(count: 3), nil, 6)
    }

    @Test func hostsThatDoNotExistAreLeftAlone() {
        var order = HostOrder(count: 1)
        order.failed(1)
        let isAnother = order.worked(-1)
        #expect(!isAnother)
        #expect(order.attempt == [0] && order.current == nil)
    }
}
