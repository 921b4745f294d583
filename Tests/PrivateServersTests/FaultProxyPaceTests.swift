import NIOCore
import Testing

@testable import PrivateServers

@Suite struct FaultProxyPaceTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000)

    @Test func latencyAndJitterAddUp() {
        var pace = FaultProxyPace()
        #expect(pace.due(came: start, chance: 1) == start)
        pace.latency = .milliseconds(10)
        pace.jitter = .milliseconds(4)
        #expect(pace.due(came: start, chance: 0) == start + .milliseconds(10))
        #expect(pace.due(came: start, chance: 0.5) == start + .milliseconds(12))
        #expect(pace.due(came: start, chance: 1) == start + .milliseconds(14))
        #expect(pace.due(came: start, chance: 7) == start + .milliseconds(14))
    }

    @Test func withoutABandwidthAllBytesLeave() {
        var pace = FaultProxyPace()
        let taken = pace.take(1 << 30, at: start)
        #expect(taken == 1 << 30)
        #expect(pace.busyUntil(start) == nil)
    }

    /// Whoever is woken as the pace says gets exactly the bandwidth; whoever comes late gets it too, but for what is too late.
    @Test(arguments: [TimeAmount.zero, .milliseconds(3), .milliseconds(45)])
    func theBandwidthIsKept(late: TimeAmount) {
        var pace = FaultProxyPace()
        pace.bandwidth = 1_000_000
        var now = start
        var passed = 0
        while now < start + .seconds(2) {
            let taken = pace.take(1 << 20, at: now)
            #expect(taken <= 5_000)
            passed += taken
            if let busy = pace.busyUntil(now) { now = busy + late }
        }
        #expect(passed >= 1_850_000 && passed <= 2_060_000, "\(passed)")
    }

    @Test func aPauseIsMadeUpForAtMostSoFar() {
        var pace = FaultProxyPace()
        pace.bandwidth = 1_000_000
        _ = pace.take(1, at: start)
        let later = start + .seconds(60)
        var passed = 0
        while pace.busyUntil(later) == nil { passed += pace.take(1 << 20, at: later) }
        #expect(passed > 50_000 && passed <= 55_000, "50 ms of it and a slice: \(passed)")
    }

    @Test func theSlowestLineMovesByteByByte() {
        var pace = FaultProxyPace()
        pace.bandwidth = 1
        let taken = [pace.take(9, at: start), pace.take(9, at: start)]
        #expect(taken == [1, 0])
        #expect(pace.busyUntil(start) == start + .milliseconds(950))
    }
}
