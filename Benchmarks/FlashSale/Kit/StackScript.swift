import Foundation

/// The script that owns the machine's servers: what the harness kills, it kills through this, by pid and never by name.
public struct StackScript: Sendable {
    /// Path of the script.
    public let path: String

    /// - Parameter path: of the script.
    public init(path: String) {
        self.path = path
    }

    /// Why a call of the script failed.
    public struct Failure: Error, CustomStringConvertible {
        /// The call and the end of its output.
        public let description: String
    }

    /// Runs `script verb server` and returns what it printed, trimmed. At most `bound`; then it is killed.
    /// - Throws: `Failure` if it cannot be run, fails, or takes too long.
    @discardableResult
    public func run(_ arguments: [String], bound: Duration = .seconds(60)) async throws -> String {
        let (status, output) = try await Self.execute(path, arguments, environment: [:], bound: bound)
        guard status == 0 else {
            throw Failure(description: "\(path) \(arguments.joined(separator: " ")) failed (\(status)): \(output.suffix(600))")
        }
        return output
    }

    /// The settings that `script env` prints: `NAME=value` lines, `export` and quotes removed.
    public func environment() async throws -> [String: String] {
        Self.settings(in: try await run(["env"]))
    }

    static func settings(in text: String) -> [String: String] {
        var settings: [String: String] = [:]
        for line in text.split(separator: "\n") {
            var line = line.trimmingPrefix { $0 == " " }
            if line.hasPrefix("export ") { line = line.dropFirst("export ".count) }
            guard let equals = line.firstIndex(of: "="), equals > line.startIndex else { continue }
            var value = line[line.index(after: equals)...]
            if let quote = value.first, quote == "'" || quote == "\"", value.count >= 2, value.last == quote {
                value = value.dropFirst().dropLast()
            }
            settings[String(line[..<equals])] = String(value)
        }
        return settings
    }

    /// Runs a shell command with further environment. Its output goes where the harness's goes.
    /// - Throws: `Failure` if it fails or takes longer than `bound`.
    public static func shell(_ command: String, environment: [String: String], bound: Duration = .seconds(120)) async throws -> String {
        let (status, output) = try await execute("/bin/sh", ["-c", command], environment: environment, bound: bound)
        guard status == 0 else { throw Failure(description: "'\(command)' failed (\(status)): \(output.suffix(600))") }
        return output
    }

    private static func execute(
        _ path: String,
        _ arguments: [String],
        environment: [String: String],
        bound: Duration
    ) async throws -> (Int32, String) {
        // A file, not a pipe: a server that the script leaves running would hold a pipe open for ever.
        let log = FileManager.default.temporaryDirectory.appendingPathComponent("flash-sale-\(UUID().uuidString).out")
        defer { try? FileManager.default.removeItem(at: log) }
        let variables = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let pid = try spawn([path] + arguments, environment: variables, output: log.path)
        // In a task of its own, so that a cancelled sale still waits for the server that it is putting back.
        let status = await Task { await wait(for: pid, bound: bound) }.value
        let text = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
        return (status, text.trimmingCharacters(in: .whitespacesAndNewlines))
    }

    /// Starts a process in a group of its own, so that Ctrl-C at the terminal does not interrupt it halfway through bringing a server back.
    ///
    /// Not Foundation's `Process`: on Linux it takes a process for running as long as any descendant lives, and a script that starts servers leaves some.
    private static func spawn(_ arguments: [String], environment: [String: String], output: String) throws -> pid_t {
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
        for number in [SIGINT, SIGTERM, SIGPIPE] { sigaddset(&signals, number) }
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

    /// The exit status; 128 and the signal for a process that was killed. After `bound` the whole group is.
    private static func wait(for pid: pid_t, bound: Duration) async -> Int32 {
        let deadline = ContinuousClock.now + bound
        var isKilled = false
        while true {
            var status: Int32 = 0
            let result = waitpid(pid, &status, WNOHANG)
            if result == pid { return status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f) }
            if result == -1, errno != EINTR { return -1 }
            if !isKilled, ContinuousClock.now >= deadline {
                kill(-pid, SIGKILL)
                isKilled = true
            }
            try? await Task.sleep(for: .milliseconds(5))
        }
    }
}
