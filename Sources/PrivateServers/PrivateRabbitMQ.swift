// Invariant: the broker lives no longer than this process. `stop`, `deinit` and exit end it, and a watching shell ends it when the process has ended.
//
// Bounds: those of the script `scripts/stack`, which starts and stops the broker: 90 s for a start, 30 s for a stop.

import Foundation
import Synchronization

/// A RabbitMQ broker that belongs to this process: on loopback, on free ports, in a temporary folder. A start takes several seconds.
public final class PrivateRabbitMQ: Sendable {
    /// Why no broker could be started.
    public struct Failure: Error, CustomStringConvertible {
        /// What went wrong, and what to do about it.
        public var description: String

        /// Creates a failure.
        public init(description: String) { self.description = description }
    }

    /// `amqp://user:password@127.0.0.1:port`. It stays the same over restarts.
    public let url: String
    /// The TCP port.
    public let port: Int
    /// `amqps://user:password@127.0.0.1:port`; nil without TLS.
    public let tlsURL: String?
    private let folder: URL
    private let isGone = Mutex(false)
    /// When a topology was first known to be declared.
    private let declaredAt = Mutex<ContinuousClock.Instant?>(nil)

    /// Runs a function on a thread of its own. Calls to the broker's tools take seconds, during which other tests need the few threads that run tasks.
    public static func onThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { continuation.resume(with: Result(catching: body)) }
        }
    }

    /// Starts a broker and waits until it speaks AMQP.
    /// - Parameter tls: what it shows at a second port; nil for no such port
    public static func start(tls: PrivateCertificates.Port? = nil) throws -> PrivateRabbitMQ {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("stockgate-broker-\(UUID().uuidString.prefix(8))")
        do {
            var tlsPort: Int?
            if let tls {
                let port = try LoopbackPort.free()
                let place = folder.appendingPathComponent("rabbitmq")
                try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
                // The script refuses a folder that is not empty, unless the file `lock` says that the folder is a stack's.
                try Data().write(to: folder.appendingPathComponent("lock"))
                try Data(tls.lines(port: port).utf8).write(to: place.appendingPathComponent("more.conf"))
                tlsPort = port
            }
            try run(folder, ["start", "rabbitmq"])
            return try PrivateRabbitMQ(folder, tlsPort: tlsPort)
        } catch {
            _ = try? run(folder, ["destroy"])
            throw error
        }
    }

    private init(_ folder: URL, tlsPort: Int?) throws {
        self.folder = folder
        let settings = try Self.run(folder, ["env"])
        guard
            let line = settings.split(separator: "\n").first(where: { $0.contains("amqp://") }),
            let address = line.range(of: "amqp://").map({ String(line[$0.lowerBound...]) }),
            let port = URLComponents(string: address)?.port
        else { throw Failure(description: "the stack names no broker") }
        url = address
        self.port = port
        tlsURL = tlsPort.map { tlsPort in
            address.replacing("amqp://", with: "amqps://", maxReplacements: 1).replacing(
                ":\(port)",
                with: ":\(tlsPort)",
                maxReplacements: 1
            )
        }
        try watch()
    }

    deinit { stop() }

    /// Records that a topology is declared now. ``settle()`` counts from the first call.
    public func noteDeclared() {
        declaredAt.withLock { $0 = $0 ?? .now }
    }

    /// Waits until the topology has been there for 3 s. To be called before a kill.
    ///
    /// RabbitMQ 3.10.8 loses a stream if its broker is killed within about a second of the stream's first declaration: after the restart the queue answers 404,
    /// "home node … is down or inaccessible", for good. A test of a crash is about a broker in use. Only time tells such a broker from one that has just begun,
    /// so this is one of the few waits for time itself.
    public func settle() async throws {
        noteDeclared()
        guard let declared = declaredAt.withLock({ $0 }) else { return }
        try await Task.sleep(until: declared + .seconds(3), clock: .continuous)
    }

    /// Kills the broker at once, as a crash would.
    public func kill() throws { try Self.run(folder, ["kill", "rabbitmq"]) }

    /// Starts the broker on the same port with the data on its disk, after killing it if it runs.
    public func restart() throws {
        try kill()
        try Self.run(folder, ["start", "rabbitmq"])
    }

    /// Pauses the broker's process, as a long hiccup would. Connections stay open.
    public func pause() throws { try Self.run(folder, ["pause", "rabbitmq"]) }

    /// Lets a paused broker continue.
    public func resume() throws { try Self.run(folder, ["resume", "rabbitmq"]) }

    /// Runs one command of `rabbitmqctl`, such as `["delete_queue", "name"]`. It takes a second or two.
    public func control(_ arguments: [String]) throws {
        let libraries = URL(fileURLWithPath: Self.script).deletingLastPathComponent().appendingPathComponent("lib").path
        // The program on the path is not used: when root runs it, it becomes a user who cannot read the stack's folder.
        let command =
            "for library in common process ports rabbitmq; do source \(libraries)/$library.sh; done; load_ports; rabbitmq_environment; exec /usr/lib/rabbitmq/bin/rabbitmqctl -q \"$@\""
        try Self.run(folder, ["-c", command, "-"] + arguments, isScript: false)
    }

    /// Ends the broker and removes its folder.
    public func stop() {
        let isFirst = isGone.withLock { isGone in
            defer { isGone = true }
            return !isGone
        }
        guard isFirst else { return }
        // A kill is faster than an orderly stop, and the broker's disk is removed anyway.
        _ = try? Self.run(folder, ["kill", "rabbitmq"])
        _ = try? Self.run(folder, ["destroy"])
    }

    // MARK: The script

    private static var script: String {
        URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("scripts/stack").path
    }

    private static func environment(_ folder: URL) -> [String: String] {
        var environment = ProcessInfo.processInfo.environment
        // Port settings in the caller's environment belong to another stack.
        for name in environment.keys where name.hasSuffix("_PORT") { environment[name] = nil }
        environment["STACK_DIR"] = folder.path
        environment["STACK_PORTS"] = "any"
        environment["INSTANCES"] = "1"
        return environment
    }

    @discardableResult
    private static func run(_ folder: URL, _ arguments: [String], isScript: Bool = true) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/bash")
        process.arguments = (isScript ? [script] : []) + arguments
        process.environment = environment(folder)
        // Output goes to files. The processes that the script starts would hold a pipe open.
        let name = FileManager.default.temporaryDirectory.appendingPathComponent("stockgate-output-\(UUID().uuidString)").path
        defer {
            try? FileManager.default.removeItem(atPath: name)
            try? FileManager.default.removeItem(atPath: name + ".err")
        }
        for file in [name, name + ".err"] {
            _ = FileManager.default.createFile(atPath: file, contents: nil, attributes: [.posixPermissions: 0o600])
        }
        let output = try FileHandle(forWritingTo: URL(fileURLWithPath: name))
        let errors = try FileHandle(forWritingTo: URL(fileURLWithPath: name + ".err"))
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = errors
        try process.run()
        process.waitUntilExit()
        try output.close()
        try errors.close()
        guard process.terminationStatus == 0 else {
            let text = (try? String(contentsOfFile: name + ".err", encoding: .utf8)) ?? ""
            throw Failure(description: "scripts/stack \(arguments.joined(separator: " ")): \(text.suffix(600))")
        }
        return try String(contentsOfFile: name, encoding: .utf8)
    }

    /// Starts a shell that ends the broker if this process is killed.
    private func watch() throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/setsid")
        process.arguments = [
            "/bin/bash", "-c",
            "while kill -0 $TESTS_PID && [ -e $STACK_DIR ]; do sleep 1; done; [ ! -e $STACK_DIR ] || { $STACK_SCRIPT kill rabbitmq; $STACK_SCRIPT destroy; }",
        ]
        process.environment = Self.environment(folder).merging([
            "TESTS_PID": String(ProcessInfo.processInfo.processIdentifier), "STACK_SCRIPT": Self.script,
        ]) { $1 }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
    }
}

extension PrivateCertificates.Port {
    fileprivate func lines(port: Int) -> String {
        """
        listeners.ssl.1 = 127.0.0.1:\(port)
        ssl_options.cacertfile = \(authority)
        ssl_options.certfile = \(end.certificate)
        ssl_options.keyfile = \(end.key)
        ssl_options.verify = \(asksClients ? "verify_peer" : "verify_none")
        ssl_options.fail_if_no_peer_cert = \(asksClients)

        """
    }
}
