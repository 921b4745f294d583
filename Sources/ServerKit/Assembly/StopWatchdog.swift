import Glibc
import Logging
import ServiceLifecycle
import Synchronization

/// Ends the process if its stop does not end: an operator who restarts a server must not find it hanging.
final class StopWatchdog: Service, CustomStringConvertible {
    private let limit: Duration
    private let logger: Logger
    private let task = Mutex<Task<Void, Never>?>(nil)

    var description: String { "watchdog" }

    init(limit: Duration, logger: Logger) {
        self.limit = limit
        self.logger = logger
    }

    func run() async throws {
        try? await gracefulShutdown()
        let (limit, logger) = (self.limit, self.logger)
        let task = Task.detached {
            do { try await Task.sleep(for: limit) } catch { return }
            logger.critical(
                "the shutdown took too long: the process ends now, with work unfinished",
                metadata: ["after": "\(limit)"]
            )
            exit(1)
        }
        self.task.withLock { $0 = task }
    }

    func shutdown() { task.withLock { $0?.cancel() } }
}
