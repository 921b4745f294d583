// A server of our own beside those of the stack: with short times, and whose memory, descriptors and exit status can be seen.
//
// Bounds: it is waited for at most a minute; a watcher ends it when this process is gone.

import Foundation
import Synchronization

/// One server process.
final class ServerProcess: Sendable {
    let name: String
    let pid: pid_t
    let port: Int
    let adminPort: Int
    private let log: URL
    private let exit = Mutex<Int32?>(nil)

    /// Why a server could not be started.
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// Starts `product-server` or `order-server` on free ports, and waits until it is ready. Call it on a thread that may wait.
    /// - Parameters:
    ///   - environment: its settings
    ///   - secrets: settings whose values must not be told
    init(_ program: String, binaries: String, environment: [String: String]) throws {
        name = program
        log = FileManager.default.temporaryDirectory.appendingPathComponent(
            "stockgate-attack-\(program)-\(UUID().uuidString.prefix(8)).log"
        )
        pid = try Self.spawn("\(binaries)/\(program)", environment: environment, output: log.path)
        // This process may be killed: the server must not outlive it.
        Self.watch(pid, log: log.path)
        let deadline = ContinuousClock.now + .seconds(60)
        while true {
            let text = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
            if let line = text.split(separator: "\n").first(where: { $0.contains(" ready: public ") }) {
                let ports = line.split(separator: ":").compactMap { Int($0.prefix { $0.isNumber }) }
                guard ports.count == 2 else { throw Failure(description: "\(program) says: \(line)") }
                (port, adminPort) = (ports[0], ports[1])
                return
            }
            var status: Int32 = 0
            if waitpid(pid, &status, WNOHANG) == pid {
                throw Failure(description: "\(program) ended while it was starting: \(text.suffix(600))")
            }
            guard ContinuousClock.now < deadline else {
                kill(pid, SIGKILL)
                waitpid(pid, &status, 0)
                throw Failure(description: "\(program) is not ready after a minute: \(text.suffix(600))")
            }
            usleep(20_000)
        }
    }

    deinit { end() }

    /// Ends it at once, if it still runs, and removes its log.
    func end() {
        exit.withLock { known in
            guard known == nil else { return }
            kill(pid, SIGKILL)
            var status: Int32 = 0
            waitpid(pid, &status, 0)
            known = status
        }
        try? FileManager.default.removeItem(at: log)
    }

    /// Sends SIGTERM and waits. Returns the exit status (128 and the signal's number for one that was killed), or nil if it still runs after the bound, and the time it took.
    func stop(within bound: Duration) -> (status: Int32?, took: Duration) {
        let began = ContinuousClock.now
        kill(pid, SIGTERM)
        while ContinuousClock.now - began < bound {
            var status: Int32 = 0
            if waitpid(pid, &status, WNOHANG) == pid {
                exit.withLock { $0 = status }
                return (status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + (status & 0x7F), .now - began)
            }
            usleep(2_000)
        }
        return (nil, .now - began)
    }

    /// Bytes of memory that are its own.
    var memory: Int {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)) ?? ""
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("RssAnon:") }) else { return 0 }
        return (Int(line.drop { !$0.isNumber }.prefix { $0.isNumber }) ?? 0) * 1024
    }

    /// Open files and sockets.
    var descriptors: Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").count) ?? 0 }

    /// Whether it has no more descriptors than this before the deadline.
    func hasDescriptors(atMost count: Int, within bound: Duration) -> Bool {
        let deadline = ContinuousClock.now + bound
        while descriptors > count {
            guard ContinuousClock.now < deadline else { return false }
            usleep(20_000)
        }
        return true
    }

    /// The end of its log.
    var lastLines: String { String(((try? String(contentsOf: log, encoding: .utf8)) ?? "").suffix(400)) }

    private static func spawn(_ path: String, environment: [String: String], output: String) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        for number in [SIGINT, SIGTERM, SIGPIPE] { sigaddset(&signals, number) }
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP))
        var argv = [strdup(path), nil]
        var envp = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var pid = pid_t()
        let failure = posix_spawn(&pid, path, &actions, &attributes, &argv, &envp)
        guard failure == 0 else { throw Failure(description: "cannot run \(path): \(String(cString: strerror(failure)))") }
        return pid
    }

    /// A shell that ends the server, and removes its log, once this process is gone.
    private static func watch(_ pid: pid_t, log: String) {
        let script = "while kill -0 \(getpid()) && kill -0 \(pid); do sleep 1; done; kill -9 \(pid); rm -f '\(log)'"
        // It is nobody's to wait for: the shell that starts it ends at once.
        let words = ["/bin/sh", "-c", "(\(script)) </dev/null >/dev/null 2>&1 &"]
        var argv: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for pointer in argv { free(pointer) } }
        var shell = pid_t()
        if posix_spawn(&shell, "/bin/sh", nil, nil, &argv, environ) == 0 {
            var status: Int32 = 0
            waitpid(shell, &status, 0)
        }
    }
}
