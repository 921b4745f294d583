import Logging
import Synchronization
import Testing

@testable import ServerKit

@Suite struct LogThrottleTests {
    private final class Lines: Sendable {
        let all = Mutex<[String]>([])
    }

    private struct Handler: LogHandler {
        let lines: Lines
        var metadata: Logger.Metadata = [:]
        var logLevel: Logger.Level = .trace
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) {
            lines.all.withLock { $0.append("\(event.message) \(event.metadata?["leftOutBefore"].map { "\($0)" } ?? "-")") }
        }
    }

    @Test func oneLineInAnIntervalCountsThoseLeftOut() {
        let lines = Lines()
        let logger = Logger(label: "test") { _ in Handler(lines: lines) }
        let throttle = LogThrottle(interval: .seconds(1))
        let start = ContinuousClock.now
        for millisecond in stride(from: 0, to: 2_500, by: 100) {
            throttle.log(.warning, "away", to: logger, at: start + .milliseconds(millisecond))
        }
        #expect(lines.all.withLock { $0 } == ["away -", "away 9", "away 9"])
    }
}
