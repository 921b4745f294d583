import Logging
import ServerMetrics
import ServiceLifecycle
import Synchronization
import Testing

@testable import ServerKit

@Suite("The watch over transactions", .timeLimit(.minutes(1)))
struct TransactionWatchTests {
    @Test func theAlarmSpeaksOncePerChange() {
        var alarm = TransactionAlarm(bound: .seconds(60))
        #expect(alarm.saw(nil) == nil)
        #expect(alarm.saw(.seconds(60)) == nil)
        #expect(alarm.saw(.seconds(61)) == .tooOld)
        #expect(alarm.saw(.seconds(71)) == nil)
        #expect(alarm.saw(.seconds(2)) == .over)
        #expect(alarm.saw(nil) == nil)
        #expect(alarm.saw(.seconds(90)) == .tooOld)
        #expect(alarm.saw(nil) == .over)
    }

    private struct Unreadable: Error {}

    @Test func theMetricShowsTheLastLookAndTheLogEachChange() async throws {
        let registry = MetricsRegistry()
        let lines = Mutex<String>("")
        let shown = Mutex<[String]>([])
        let looks = Mutex<[Result<Duration?, Unreadable>]>([
            .success(nil), .success(.seconds(61)), .success(.seconds(62)), .failure(Unreadable()), .success(.seconds(63)),
            .success(.seconds(1)),
        ])
        let (ended, end) = AsyncStream.makeStream(of: Void.self)
        let name = "stockgate_database_oldest_transaction_seconds "
        let logger = Logger(label: "test") { label in
            ServerLogHandler(label: label, level: .info, format: .text) { line in
                lines.withLock { $0 += String(decoding: line, as: UTF8.self) }
            }
        }
        let watch = TransactionWatch(interval: .milliseconds(1), registry: registry, logger: logger) {
            // What the look before left to be seen.
            let text = String(decoding: registry.exposition(), as: UTF8.self)
            let value = text.split(separator: "\n").first { $0.hasPrefix(name) }.map { String($0.dropFirst(name.count)) } ?? "none"
            let look = looks.withLock { looks in looks.isEmpty ? nil : looks.removeFirst() }
            guard let look else {
                end.yield()
                return nil
            }
            shown.withLock { $0.append(value) }
            return try look.get().map { .init(age: $0, who: "pid 7, role ann") }
        }
        let run = Task { try await watch.run() }
        for await _ in ended { break }
        run.cancel()
        _ = try? await run.value
        #expect(shown.withLock { $0 } == ["none", "0", "61", "62", "none", "63"])
        let log = lines.withLock { $0 }
        #expect(log.components(of: "has been open for too long:") == 1)
        #expect(log.components(of: "pid 7, role ann") == 1)
        #expect(log.components(of: "any more") == 1)
    }
}

extension String {
    /// How often a text is in this one.
    fileprivate func components(of text: String) -> Int { ranges(of: text).count }
}
