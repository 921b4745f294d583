import Logging
import Synchronization
import Testing

@testable import ServerKit

@Suite struct StartWaitTests {
    private struct Away: Error { var isNotThereYet = true }
    private struct Bug: Error {}

    private final class Lines: Sendable {
        private let lines = Mutex<[String]>([])
        var all: [String] { lines.withLock { $0 } }
        var logger: Logger {
            Logger(label: "s") { label in
                ServerLogHandler(label: label, level: .debug, format: .text) { line in
                    self.lines.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
                }
            }
        }
    }

    private func wait(_ timeout: Duration, _ lines: Lines, _ attempt: @escaping @Sendable () async throws -> Int) async throws -> Int {
        try await StartWait(timeout: timeout, logger: lines.logger, minimumPause: .milliseconds(1), maximumPause: .milliseconds(5)).wait(
            for: "Thing",
            at: "THING_URL",
            judge: { ($0 as? Away).map { ($0.isNotThereYet, "it said no to u:***@h") } },
            attempt
        )
    }

    @Test func whatIsThereIsNotMentioned() async throws {
        let lines = Lines()
        #expect(try await wait(.seconds(60), lines) { 7 } == 7)
        #expect(lines.all.isEmpty)
    }

    @Test func whatComesLaterIsWaitedForAndMentionedTwice() async throws {
        let lines = Lines()
        let left = Mutex(5)
        let value = try await wait(.seconds(60), lines) {
            let isThere = left.withLock { left in
                left -= 1
                return left == 0
            }
            if !isThere { throw Away() }
            return 7
        }
        #expect(value == 7)
        #expect(lines.all.count == 2, "\(lines.all)")
        #expect(
            lines.all.first?.contains("warning s: Thing is not there yet: the start waits for it atMost=1m setting=THING_URL why=") == true
        )
        #expect(lines.all.last?.contains("notice s: Thing is there: the start goes on after=") == true)
    }

    @Test func whatNeverComesEndsTheStartWithTheTime() async throws {
        let lines = Lines()
        // The second is longer than a busy machine takes for the first attempt, which is what the line tells of.
        for timeout in [Duration.zero, .seconds(2)] {
            let error = await #expect(throws: StartWait.Failure.self) { try await wait(timeout, lines) { throw Away() } }
            #expect(
                error?.description
                    == "THING_URL: Thing was not there within START_TIMEOUT (\(timeout.settingText)): it said no to u:***@h"
            )
        }
        #expect(lines.all.count == 1)
    }

    @Test func whatCanNeverWorkEndsTheStartAtOnce() async throws {
        let lines = Lines()
        let attempts = Atomic(0)
        let error = await #expect(throws: StartWait.Failure.self) {
            try await wait(.seconds(60), lines) {
                attempts.wrappingAdd(1, ordering: .relaxed)
                throw Away(isNotThereYet: false)
            }
        }
        #expect(error?.description == "THING_URL leads to nothing that can be used: it said no to u:***@h")
        await #expect(throws: Bug.self) { try await wait(.seconds(60), lines) { throw Bug() } }
        #expect(attempts.load(ordering: .relaxed) == 1)
        #expect(lines.all.isEmpty)
    }

    /// An attempt that hears of nothing, as one in a C library, is left behind.
    @Test(.timeLimit(.minutes(1))) func aStopEndsTheWaitAtOnce() async throws {
        let (never, hold) = AsyncStream.makeStream(of: Int.self)
        let begun = AsyncStream.makeStream(of: Void.self)
        let waiting = Task {
            try await wait(.seconds(3600), Lines()) {
                begun.continuation.yield()
                return await Task.detached {
                    for await value in never { return value }; return 0
                }.value
            }
        }
        for await _ in begun.stream { break }
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
        hold.finish()
        // Between two attempts just the same.
        let pausing = Task {
            try await StartWait(timeout: .seconds(3600), logger: Lines().logger, minimumPause: .seconds(3600), maximumPause: .seconds(3600))
                .wait(for: "Thing", at: "THING_URL", judge: { _ in (true, "") }) { throw Away() }
        }
        pausing.cancel()
        await #expect(throws: CancellationError.self) { try await pausing.value }
    }
}
