public import Foundation
import Synchronization

/// A Redis server that belongs to one test: on loopback, on a free port, in a temporary folder, without persistence unless a test asks for it.
///
/// The server cannot outlive the tests: the kernel kills it when the process that started it ends, however that happens, and `deinit` and exit stop it too.
public final class PrivateRedis: Sendable {
    /// Why a server did not start, or did not do what it was told.
    public struct Failure: Error, Sendable, CustomStringConvertible {
        /// What went wrong and what helps.
        public let description: String
    }

    /// The TCP port. It stays the same over restarts.
    public let port: Int
    /// The working folder: dump, log and Unix socket.
    public let directory: URL
    private let options: [String]
    /// The lines of a sentinel's configuration; nil for a server that holds data.
    private let sentinel: [String]?
    private let state: Mutex<State>

    private struct State {
        var process: Process?
        var paused = false
    }

    /// The port of TLS, beside the plain one; nil without TLS.
    public let tlsPort: Int?

    /// `redis://127.0.0.1:port`
    public var url: String { "redis://127.0.0.1:\(port)" }
    /// The path of the server's Unix domain socket.
    public var socketPath: String { directory.appendingPathComponent("redis.sock").path }
    private var sentinelPath: String { directory.appendingPathComponent("sentinel.conf").path }
    /// The path of the dump that `save` writes.
    public var dumpPath: String { directory.appendingPathComponent("dump.rdb").path }
    /// The process id; nil while the server does not run.
    public var pid: Int32? { state.withLock { $0.process.map(\.processIdentifier) } }

    private init(port: Int, tlsPort: Int?, directory: URL, options: [String], sentinel: [String]?) {
        self.port = port
        self.tlsPort = tlsPort
        self.directory = directory
        self.options = options
        self.sentinel = sentinel
        state = Mutex(State())
    }

    deinit {
        kill()
        try? FileManager.default.removeItem(at: directory)
    }

    /// Starts a server and waits until it answers.
    /// - Parameters:
    ///   - options: further settings as on the command line, such as `["--maxmemory", "1mb"]`.
    ///   - tls: what it shows at a second port; nil for no such port.
    public static func start(options: [String] = [], tls: PrivateCertificates.Port? = nil) throws -> PrivateRedis {
        try start(options: options, tls: tls, sentinel: nil)
    }

    /// Starts a sentinel, and waits until it answers.
    /// - Parameters:
    ///   - lines: its configuration, such as `sentinel monitor shop 127.0.0.1 6379 2`. The sentinel writes what it learns into the file.
    ///   - tls: what it shows at a second port; nil for no such port.
    public static func startSentinel(_ lines: [String], tls: PrivateCertificates.Port? = nil) throws -> PrivateRedis {
        try start(options: [], tls: tls, sentinel: lines)
    }

    private static func start(options: [String], tls: PrivateCertificates.Port?, sentinel: [String]?) throws -> PrivateRedis {
        var last: any Error = Failure(description: "no free port")
        // Another process may take the port between the search and the start, so there are several tries.
        for _ in 0..<5 {
            let directory = FileManager.default.temporaryDirectory.appendingPathComponent("redis-\(UUID().uuidString.prefix(8))")
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            let tlsPort = try tls.map { _ in try LoopbackPort.free() }
            let server = PrivateRedis(
                port: try LoopbackPort.free(),
                tlsPort: tlsPort,
                directory: directory,
                options: options + (tls.map { $0.options(port: tlsPort ?? 0) } ?? []),
                sentinel: sentinel
            )
            do {
                try server.launch()
                return server
            } catch {
                last = error
            }
        }
        throw last
    }

    /// Stops the server in the orderly way, without saving.
    public func stop() {
        // The signal alone may not reach the server, because a child inherits the signals that its starter has blocked.
        resume()
        _ = try? call(["SHUTDOWN", "NOSAVE"])
        end(SIGTERM)
    }

    /// Kills the server at once, as a crash would.
    public func kill() {
        end(SIGKILL)
    }

    /// Pauses the server's process, as a long hiccup would. Connections stay open.
    public func pause() {
        self.state.withLock { state in
            guard let process = state.process else { return }
            _ = Foundation.kill(process.processIdentifier, SIGSTOP)
            state.paused = true
        }
    }

    /// Lets a paused server continue.
    public func resume() {
        self.state.withLock { state in
            guard let process = state.process else { return }
            _ = Foundation.kill(process.processIdentifier, SIGCONT)
            state.paused = false
        }
    }

    /// Starts the server again on the same port, after killing it if it runs, with the dump that `save` wrote, if there is one.
    /// - Parameter empty: whether to remove the dump first
    public func restart(empty: Bool = true) throws {
        kill()
        if empty { try? FileManager.default.removeItem(atPath: dumpPath) }
        try launch()
    }

    /// Starts the server again on the same port, after killing it if it runs, with a copy of this dump.
    public func restart(fromDump dump: String) throws {
        kill()
        let content = try Data(contentsOf: URL(fileURLWithPath: dump))
        try content.write(to: URL(fileURLWithPath: dumpPath))
        try launch()
    }

    /// Writes a dump of the present data, and returns the path of a copy that later saves leave alone.
    public func saveDumpCopy() throws -> String {
        let reply = try call(["SAVE"])
        guard reply.hasPrefix("+OK") else { throw Failure(description: "SAVE: \(reply)") }
        let copy = directory.appendingPathComponent("dump-\(UUID().uuidString.prefix(8)).rdb")
        try FileManager.default.copyItem(at: URL(fileURLWithPath: dumpPath), to: copy)
        return copy.path
    }

    /// Sends one command over a new connection, blocking, and returns the raw reply: one read of at most 64 kB, within two seconds.
    /// - Parameter password: the default user's, which `AUTH` tells first; nil for none
    @discardableResult
    public func call(_ arguments: [String], password: String? = nil) throws -> String {
        let socket = Foundation.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard socket >= 0 else { throw Failure(description: "socket: errno \(errno)") }
        defer { Foundation.close(socket) }
        var timeout = timeval(tv_sec: 2, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var address = loopbackAddress(port: UInt16(self.port))
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Foundation.connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard connected == 0 else { throw Failure(description: "connect: errno \(errno)") }
        func ask(_ arguments: [String]) throws -> String {
            var request = "*\(arguments.count)\r\n"
            for argument in arguments { request += "$\(argument.utf8.count)\r\n\(argument)\r\n" }
            let bytes = Array(request.utf8)
            guard Foundation.send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else {
                throw Failure(description: "send: errno \(errno)")
            }
            var reply = [UInt8](repeating: 0, count: 65536)
            let count = Foundation.recv(socket, &reply, reply.count, 0)
            guard count > 0 else { throw Failure(description: "no reply: errno \(errno)") }
            return String(decoding: reply[..<count], as: UTF8.self)
        }
        if let password {
            let granted = try ask(["AUTH", password])
            guard granted.hasPrefix("+OK") else { throw Failure(description: "AUTH: \(granted)") }
        }
        return try ask(arguments)
    }

    // MARK: The process

    private func launch() throws {
        guard let server = executable("redis-server") else {
            throw Failure(description: "redis-server is not installed: apt-get install redis-server")
        }
        guard let setpriv = executable("setpriv") else {
            throw Failure(description: "setpriv is not installed: apt-get install util-linux")
        }
        try? FileManager.default.removeItem(atPath: socketPath)
        let process = Process()
        process.executableURL = setpriv
        if let sentinel = self.sentinel, !FileManager.default.fileExists(atPath: sentinelPath) {
            // The options are names and values by turns.
            let options = stride(from: 0, to: self.options.count - 1, by: 2).map {
                "\(self.options[$0].dropFirst(2)) \(self.options[$0 + 1])"
            }
            let lines = ["port \(port)", "bind 127.0.0.1", "dir \(directory.path)"] + options + sentinel
            try Data((lines.joined(separator: "\n") + "\n").utf8).write(to: URL(fileURLWithPath: sentinelPath))
        }
        process.arguments =
            self.sentinel != nil
            ? ["--pdeathsig", "KILL", server.path, sentinelPath, "--sentinel"]
            : [
                "--pdeathsig", "KILL", server.path, "--port", "\(port)", "--bind", "127.0.0.1", "--unixsocket", socketPath,
                "--dir", directory.path, "--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning",
                "--logfile", directory.appendingPathComponent("redis.log").path,
            ] + self.options
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try ProcessStarter.shared.start(process)
        state.withLock {
            $0.process = process
            $0.paused = false
        }
        let deadline = Date().addingTimeInterval(10)
        while Date() < deadline {
            guard process.isRunning else {
                end(SIGKILL)
                throw Failure(description: "redis-server ended at once: \(logTail())")
            }
            if let reply = try? call(["PING"]), reply.hasPrefix("+PONG") || reply.hasPrefix("-NOAUTH"), answersItself(process) {
                return
            }
            // A server's start shows no other sign, so it is polled. The deadline above bounds the polling.
            usleep(5000)
        }
        end(SIGKILL)
        throw Failure(description: "redis-server did not answer within 10 s: \(logTail())")
    }

    /// Whether this server answers, and not another one that took the port first.
    private func answersItself(_ process: Process) -> Bool {
        guard let info = try? call(["INFO", "server"]) else { return false }
        return info.hasPrefix("-NOAUTH") || info.contains("process_id:\(process.processIdentifier)\r\n")
    }

    private func end(_ signal: Int32) {
        guard
            let process = self.state.withLock({ state -> Process? in
                let process = state.process
                state.process = nil
                state.paused = false
                return process
            })
        else { return }
        ProcessStarter.shared.end(process, signal: signal)
    }

    private func logTail() -> String {
        let log = (try? String(contentsOf: directory.appendingPathComponent("redis.log"), encoding: .utf8)) ?? ""
        return String(log.suffix(500))
    }
}

extension PrivateCertificates.Port {
    fileprivate func options(port: Int) -> [String] {
        [
            "--tls-port", "\(port)", "--tls-cert-file", end.certificate, "--tls-key-file", end.key, "--tls-ca-cert-file", authority,
            "--tls-auth-clients", asksClients ? "yes" : "no",
        ]
    }
}

/// Starts processes from one thread that never ends, and kills those that are left at exit.
///
/// The kernel sends the parent-death signal when the *thread* that started a child ends, even if its process lives on. The threads of a pool come and go.
private final class ProcessStarter: Sendable {
    static let shared = ProcessStarter()

    private struct Job: @unchecked Sendable {
        // The process object is passed to the starter's thread and back. The caller waits on `done`, so the two never use it at the same time.
        let process: Process
        let done: DispatchSemaphore
    }

    private struct State: Sendable {
        var jobs: [Job] = []
        var failures: [ObjectIdentifier: String] = [:]
        var running: Set<Int32> = []
    }

    private let state = Mutex(State())
    private let wake = DispatchSemaphore(value: 0)

    private init() {
        let thread = Thread { ProcessStarter.shared.run() }
        thread.name = "process-starter"
        thread.start()
        atexit { ProcessStarter.shared.killAll() }
    }

    func start(_ process: Process) throws {
        let job = Job(process: process, done: DispatchSemaphore(value: 0))
        state.withLock { $0.jobs.append(job) }
        wake.signal()
        job.done.wait()
        if let failure = state.withLock({ $0.failures.removeValue(forKey: ObjectIdentifier(process)) }) {
            throw PrivateRedis.Failure(description: failure)
        }
    }

    func end(_ process: Process, signal: Int32) {
        let pid = process.processIdentifier
        if process.isRunning {
            _ = kill(pid, signal)
            // A paused process handles its signal only after it continues.
            _ = kill(pid, SIGCONT)
            let deadline = Date().addingTimeInterval(3)
            while process.isRunning {
                if Date() > deadline { _ = kill(pid, SIGKILL) }
                usleep(1000)
            }
        }
        _ = state.withLock { $0.running.remove(pid) }
    }

    private func run() {
        while true {
            wake.wait()
            guard let job = state.withLock({ $0.jobs.isEmpty ? nil : $0.jobs.removeFirst() }) else { continue }
            do {
                try job.process.run()
                let pid = job.process.processIdentifier
                _ = state.withLock { $0.running.insert(pid) }
            } catch {
                let text = String(describing: error)
                state.withLock { $0.failures[ObjectIdentifier(job.process)] = text }
            }
            job.done.signal()
        }
    }

    private func killAll() {
        for pid in state.withLock({ $0.running }) { _ = kill(pid, SIGKILL) }
    }
}

private func executable(_ name: String) -> URL? {
    for folder in ["/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin"] {
        let path = "\(folder)/\(name)"
        if FileManager.default.isExecutableFile(atPath: path) { return URL(fileURLWithPath: path) }
    }
    return nil
}
