import CThreads
import Glibc

/// The system has no thread left, or no descriptor by which a thread could be woken.
public struct ThreadUnavailable: Error, Hashable, CustomStringConvertible {
    /// What could not be had.
    public let description: String
    /// The system's error number.
    public let number: Int32

    init(_ what: String, _ number: Int32) {
        description = "\(what) (error \(number))"
        self.number = number
    }

    /// Runs what needs a thread or a descriptor.
    ///
    /// - Parameter failure: makes an error of the caller's own kind.
    /// - Throws: that error.
    public static func translated<T, Failure: Error>(
        by failure: (ThreadUnavailable) -> Failure,
        _ body: () throws(ThreadUnavailable) -> T
    ) throws(Failure) -> T {
        do throws(ThreadUnavailable) {
            return try body()
        } catch {
            throw failure(error)
        }
    }
}

/// Threads for calls of C libraries that block: no event loop and no thread of Swift's shared pool waits for them.
public enum BlockingThread {
    private final class Start: Sendable {
        let name: String
        let body: @Sendable () -> Void

        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// Starts a detached thread, which ends with `body`.
    ///
    /// - Parameter name: shown by the system, which keeps 15 bytes of it.
    /// - Throws: ``ThreadUnavailable`` if the system has no thread left; `body` does not run then.
    public static func start(name: String, _ body: @escaping @Sendable () -> Void) throws(ThreadUnavailable) {
        // Retained here, released by the thread that takes it over, or below if there is none.
        let start = Unmanaged.passRetained(Start(name: name, body: body))
        var thread = pthread_t()
        let status = pthread_create(
            &thread,
            nil,
            { argument in
                guard let argument else { return nil }
                let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                cthreads_name_thread(start.name)
                start.body()
                return nil
            },
            start.toOpaque()
        )
        guard status == 0 else {
            start.release()
            throw ThreadUnavailable("no thread could be started", status)
        }
        pthread_detach(thread)
    }
}
