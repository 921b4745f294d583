// Invariant: the broker lives no longer than this process: `stop`, `deinit` and exit end it, and a watching shell ends it when the process is gone.
//
// Bounds: those of `scripts/stack`, which does the work: 90 s for a start, 30 s for a stop.

import Foundation
import Synchronization

/// A RabbitMQ broker of this process's own: on loopback, on free ports, in a temporary folder. A start takes several seconds.
public final class PrivateRabbitMQ: Sendable {
    /// Why there is no broker.
    public struct Failure: Error, CustomStringConvertible {
        /// What to do about it.
        public var description: String

        /// Says why.
        public init(description: String) { self.description = description }
    }

    /// `amqp://user:password@127.0.0.1:port`; stays the same over restarts.
    public let url: String
    /// The TCP port.
    public let port: Int
    private let folder: URL
    private let isGone = Mutex(false)
    /// When a topology was first known to be declared.
    private let declaredAt = Mutex<ContinuousClock.Instant?>(nil)

    /// Does something of this broker's on a thread of its own: it takes seconds, in which other tests need the few threads that tasks run on.
    public static func onThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { continuation.resume(with: Result(catching: body)) }
        }
    }

    /// Starts a broker and waits until it speaks AMQP.
    public static func start() throws -> PrivateRabbitMQ {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("stockgate-broker-\(UUID().uuidString.prefix(8))")
        do {
            try run(folder, ["start", "rabbitmq"])
            return try PrivateRabbitMQ(folder)
        } catch {
            _ = try? run(folder, ["destroy"])
            throw error
        }
    }

    private init(_ folder: URL) throws {
        self.folder = folder
        let settings = try Self.run(folder, ["env"])
        guard
            let line = settings.split(separator: "\n").first(where: { $0.contains("amqp://") }),
            let address = line.range(of: "amqp://").map({ String(line[$0.lowerBound...]) }),
            let port = URLComponents(string: address)?.port
        else { throw Failure(description: "the stack names no broker") }
        url = address
        self.port = port
        try watch()
    }

    deinit { stop() }

    /// Says that a topology is declared now: ``settle()`` counts from the first time.
    public func noteDeclared() {
        declaredAt.withLock { $0 = $0 ?? .now }
    }

    /// Waits until the topology has been there for 3 s. To be called before a kill.
    ///
    /// RabbitMQ 3.10.8 loses a stream whose broker is killed within about a second of the stream's first declaration: after the restart the queue answers
    /// 404, "home node … is down or inaccessible", for good. What a test of a crash is about is a broker in use, not one that was never used: nothing but
    /// time tells the two apart, so this is one of the few waits for time itself.
    public func settle() async throws {
        noteDeclared()
        guard let declared = declaredAt.withLock({ $0 }) else { return }
        try await Task.sleep(until: declared + .seconds(3), clock: .continuous)
    }

    /// Kills it at once, as a crash would.
    public func kill() throws { try Self.run(folder, ["kill", "rabbitmq"]) }

    /// Starts it on the same port with what is on its disk, after killing it if it runs.
    public func restart() throws {
        try kill()
        try Self.run(folder, ["start", "rabbitmq"])
    }

    /// Stops the process from running, as a long hiccup would; connections stay up.
    public func pause() throws { try Self.run(folder, ["pause", "rabbitmq"]) }

    /// Lets a paused broker go on.
    public func resume() throws { try Self.run(folder, ["resume", "rabbitmq"]) }

    /// Runs one command of `rabbitmqctl`, such as `["delete_queue", "name"]`; takes a second or two.
    public func control(_ arguments: [String]) throws {
        let libraries = URL(fileURLWithPath: Self.script).deletingLastPathComponent().appendingPathComponent("lib").path
        // Not the one on the path: run by root, that one becomes a user who cannot read the stack's folder.
        let command =
            "for library in common process ports rabbitmq; do source \(libraries)/$library.sh; done; load_ports; rabbitmq_environment; exec /usr/lib/rabbitmq/bin/rabbitmqctl -q \"$@\""
        try Self.run(folder, ["-c", command, "-"] + arguments, isScript: false)
    }

    /// Ends it and removes its folder.
    public func stop() {
        let isFirst = isGone.withLock { isGone in
            defer { isGone = true }
            return !isGone
        }
        guard isFirst else { return }
        // A crash is quicker than an orderly stop, and its disk is removed anyway.
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
        // Ports that the caller's shell knows belong to another stack.
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
        // Into files: a pipe would be held open by what the script starts.
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

    /// The process may be killed: the broker must not outlive it.
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
