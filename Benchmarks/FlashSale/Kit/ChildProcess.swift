public import Foundation
import Glibc

/// A process in a group of its own, which Ctrl-C at the terminal does not reach: the program that started it ends it, and chooses the order.
///
/// Not Foundation's `Process`: on Linux that takes a process for running as long as any descendant lives, and a script that starts servers leaves some.
public struct ChildProcess: Sendable {
    /// Its process id, which is its group's as well.
    public let pid: pid_t
    /// The file that its output goes to.
    public let log: String
    private let arguments: [String]
    private let environment: [String: String]

    /// Why a process could not be started, or did not do what it was started for.
    public struct Failure: Error, CustomStringConvertible {
        /// A sentence.
        public let description: String

        /// - Parameter description: a sentence.
        public init(description: String) { self.description = description }
    }

    /// Starts a server that must not outlive this process: a shell of its own ends it, with its group, once this process is gone.
    /// - Parameters:
    ///   - arguments: the program's path, and its arguments.
    ///   - environment: all of it.
    ///   - log: the file that its output is added to.
    ///   - isLogKept: whether the file is still there when the server and this process have ended.
    /// - Throws: `Failure` if it cannot be started.
    public init(_ arguments: [String], environment: [String: String], log: String, isLogKept: Bool = true) throws {
        pid = try Self.spawn(arguments, environment: environment, output: log)
        self.log = log
        self.arguments = arguments
        self.environment = environment
        let script = "while kill -0 \(getpid()) && kill -0 \(pid); do sleep 1; done; kill -9 -\(pid)\(isLogKept ? "" : "; rm -f '\(log)'")"
        // The shell that starts the watching one ends at once, so that the watcher is nobody's to wait for.
        let shell = try Self.spawn(
            ["/bin/sh", "-c", "(\(script)) </dev/null >/dev/null 2>&1 &"],
            environment: [:],
            output: "/dev/null"
        )
        var status: Int32 = 0
        while waitpid(shell, &status, 0) == -1, errno == EINTR {}
    }

    /// Starts another one with the same arguments, environment and log. This one must have ended, or the two get into each other's way.
    public func again() throws -> ChildProcess {
        try ChildProcess(arguments, environment: environment, log: log)
    }

    /// Whether the process runs. One that has ended is taken out of the process table by this.
    public var isRunning: Bool {
        var status: Int32 = 0
        return waitpid(pid, &status, WNOHANG) == 0
    }

    /// Sends a signal to it and all of its group.
    public func signal(_ number: Int32) {
        kill(-pid, number)
    }

    /// Ends it: SIGTERM, and SIGKILL for what of its group is left after `patience`.
    public func end(patience: Duration = .seconds(3)) async {
        // In a task of its own, so that a caller who was cancelled still waits for the end.
        await Task {
            signal(SIGTERM)
            let deadline = ContinuousClock.now + patience
            while isRunning, ContinuousClock.now < deadline { try? await Task.sleep(for: .milliseconds(10)) }
            // The group is still the child's while any of it is left.
            signal(SIGKILL)
            // Nothing survives SIGKILL for long.
            while isRunning { try? await Task.sleep(for: .milliseconds(5)) }
        }.value
    }

    /// The end of what it wrote.
    public var lastLines: String { String(((try? String(contentsOfFile: log, encoding: .utf8)) ?? "").suffix(800)) }

    /// Starts a process in a group of its own.
    static func spawn(_ arguments: [String], environment: [String: String], output: String) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // What the harness ignores or blocks, a server started by the script must not.
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        for number in [SIGINT, SIGTERM, SIGHUP, SIGPIPE] { sigaddset(&signals, number) }
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP))

        var argv = arguments.map { strdup($0) } + [nil]
        var envp = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer {
            for pointer in argv + envp { free(pointer) }
        }
        var pid = pid_t()
        let failure = posix_spawn(&pid, arguments[0], &actions, &attributes, &argv, &envp)
        guard failure == 0 else { throw Failure(description: "cannot run \(arguments[0]): \(String(cString: strerror(failure)))") }
        return pid
    }
}
