import BlockingThreads
import Testing

@Suite("Back-off")
struct BackoffTests {
    let start = ContinuousClock.now

    @Test func backoffDoublesUpToItsMaximum() {
        var backoff = ReconnectBackoff(minimum: .milliseconds(100), maximum: .seconds(1))
        let waits = (0..<6).map { _ in backoff.failed(at: start, random: 0) }
        #expect(waits == [.milliseconds(100), .milliseconds(200), .milliseconds(400), .milliseconds(800), .seconds(1), .seconds(1)])
    }

    @Test func jitterTakesUpToHalf() {
        var backoff = ReconnectBackoff(minimum: .milliseconds(100), maximum: .seconds(1))
        #expect(backoff.failed(at: start, random: 1) == .milliseconds(50))
        #expect(backoff.failed(at: start, random: 0.5) == .milliseconds(150))
        #expect(backoff.failed(at: start, random: 7) == .milliseconds(200))
    }

    @Test func onlyALongConnectionMakesItForget() {
        var backoff = ReconnectBackoff(minimum: .milliseconds(100), maximum: .seconds(1))
        _ = backoff.failed(at: start, random: 0)
        backoff.connected(at: start)
        #expect(backoff.failed(at: start + .milliseconds(999), random: 0) == .milliseconds(200))
        backoff.connected(at: start)
        #expect(backoff.failed(at: start + .seconds(1), random: 0) == .milliseconds(100))
        // A failed attempt after that does not count the old connection's life again.
        #expect(backoff.failed(at: start + .seconds(9), random: 0) == .milliseconds(200))
    }

    @Test func backoffBoundsNonsense() {
        var backoff = ReconnectBackoff(minimum: .zero, maximum: .zero)
        for _ in 0..<100 { #expect(backoff.failed(at: start, random: 0) == .milliseconds(1)) }
    }

    @Test func jitterTakesWhatItIsAllowed() {
        let none = Backoff(minimum: .milliseconds(100), maximum: .seconds(1), jitter: 0)
        let quarter = Backoff(minimum: .milliseconds(100), maximum: .seconds(1), jitter: 0.25)
        #expect(none.wait(after: 1, random: 1) == .milliseconds(200))
        #expect(quarter.wait(after: 1, random: 1) == .milliseconds(150))
        #expect(quarter.wait(after: 9, random: 1) == .milliseconds(750))
        #expect(Backoff(minimum: .milliseconds(100), maximum: .seconds(1), jitter: 7).wait(after: 0, random: 1) == .zero)
    }

    @Test func chanceTakesNothingOffAWholeWait() {
        let backoff = Backoff(minimum: .milliseconds(20), maximum: .seconds(1), jitter: 0.5)
        let waits = (0..<8).map { backoff.wholeWait(after: $0) }
        #expect(waits == [20, 40, 80, 160, 320, 640, 1000, 1000].map { .milliseconds($0) })
        #expect((0..<8).map { backoff.wait(after: $0, random: 0) } == waits)
    }

    @Test func countsBelowNothingAndBeyondEverythingAreBounded() {
        let backoff = Backoff(minimum: .milliseconds(10), maximum: .seconds(86_400), jitter: 0)
        #expect(backoff.wait(after: -1, random: 0) == .milliseconds(10))
        #expect(backoff.wait(after: .max, random: 0) == .seconds(86_400))
        // A maximum below the minimum is none.
        #expect(Backoff(minimum: .seconds(5), maximum: .seconds(1), jitter: 0).wait(after: 3, random: 0) == .seconds(5))
    }
}
