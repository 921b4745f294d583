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
        let pid: pid_t
        do {
            pid = try ChildProcess.spawn([path] + arguments, environment: variables, output: log.path)
        } catch {
            throw Failure(description: "\(error)")
        }
        // In a task of its own, so that a cancelled sale still waits for the server that it is putting back.
        let status = await Task { await wait(for: pid, bound: bound) }.value
        let text = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
        return (status, text.trimmingCharacters(in: .whitespacesAndNewlines))
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
