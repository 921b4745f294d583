import Foundation
import PrivateServers
import Synchronization

/// One server's process, started with settings of its own and without a stack: for what happens at its start and to the process itself.
final class ServerProcess: Sendable {
    let name: String
    private let process: Process
    private let output: URL
    private let errors: URL
    private let status = Mutex<Int32?>(nil)

    /// Starts a server on free ports.
    /// - Parameter settings: its whole environment, but `PATH`
    init(_ name: String, _ settings: [String: String], arguments: [String] = []) throws {
        let beside = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path
        let binary = "\(ProcessInfo.processInfo.environment["STOCKGATE_BIN_DIR"] ?? beside)/\(name)"
        guard FileManager.default.isExecutableFile(atPath: binary) else {
            throw SystemFailure(description: "\(binary) is not there: build it (swift build), or set STOCKGATE_BIN_DIR")
        }
        self.name = name
        let files = FileManager.default.temporaryDirectory.appendingPathComponent("stockgate-server-\(UUID().uuidString.prefix(8))")
        output = files.appendingPathExtension("out")
        errors = files.appendingPathExtension("err")
        for file in [output, errors] { try Data().write(to: file) }
        process = Process()
        process.executableURL = URL(fileURLWithPath: binary)
        process.arguments = arguments
        let ports =
            name == "order-server" ? ["ORDER_PORT": "0", "ORDER_ADMIN_PORT": "0"] : ["PRODUCT_PORT": "0", "PRODUCT_ADMIN_PORT": "0"]
        process.environment = ports.merging(settings) { $1 }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = try FileHandle(forWritingTo: output)
        process.standardError = try FileHandle(forWritingTo: errors)
        process.terminationHandler = { [weak self] process in
            // A signal's number as a shell shows it.
            let code = process.terminationReason == .uncaughtSignal ? 128 + process.terminationStatus : process.terminationStatus
            self?.status.withLock { $0 = code }
        }
        try process.runWithAllSignals()
        try endWithTheTests()
    }

    /// The tests may be killed: the server must not outlive them.
    private func endWithTheTests() throws {
        let watcher = Process()
        watcher.executableURL = URL(fileURLWithPath: "/usr/bin/setsid")
        watcher.arguments = [
            "/bin/sh", "-c", "while kill -0 $1; do kill -0 $2 || { kill -9 $1; exit; }; sleep 1; done", "watcher",
            String(process.processIdentifier), String(ProcessInfo.processInfo.processIdentifier),
        ]
        watcher.standardInput = FileHandle.nullDevice
        watcher.standardOutput = FileHandle.nullDevice
        watcher.standardError = FileHandle.nullDevice
        try watcher.run()
    }

    /// How it has ended; nil while it runs.
    var exitStatus: Int32? { status.withLock { $0 } }

    /// What it has logged.
    var log: String { (try? String(contentsOf: errors, encoding: .utf8)) ?? "" }

    /// What it has written to its standard output.
    var printed: String { (try? String(contentsOf: output, encoding: .utf8)) ?? "" }

    /// The lines of the log that hold a text.
    func lines(_ text: String) -> [Substring] { log.split(separator: "\n").filter { $0.contains(text) } }

    /// The public and the admin port; nil before it is ready.
    var ports: (publicPort: Int, adminPort: Int)? {
        let line = (try? String(contentsOf: output, encoding: .utf8)) ?? ""
        let numbers = line.split(whereSeparator: { " ,\n".contains($0) }).compactMap { word in
            word.contains(":") ? word.split(separator: ":").last.flatMap { Int($0) } : nil
        }
        return numbers.count == 2 ? (numbers[0], numbers[1]) : nil
    }

    func send(_ signal: Int32) { kill(process.processIdentifier, signal) }

    /// Waits until it is ready and gives its addresses.
    func ready() async throws -> (address: String, admin: String) {
        try await until("\(name) is ready", within: .seconds(120)) { self.ports != nil || self.exitStatus != nil }
        guard let ports else { throw SystemFailure(description: "\(name) ended with \(exitStatus ?? -1): \(log)") }
        return ("http://127.0.0.1:\(ports.publicPort)", "http://127.0.0.1:\(ports.adminPort)")
    }

    /// Waits until it has ended.
    func ended(within bound: Duration = .seconds(90)) async throws -> Int32 {
        try await until("\(name) has ended", within: bound) { self.exitStatus != nil }
        return exitStatus ?? -1
    }

    /// Whether it has taken SIGTERM over: its services run.
    var hasHandlers: Bool {
        let status = (try? String(contentsOfFile: "/proc/\(process.processIdentifier)/status", encoding: .utf8)) ?? ""
        let masks = status.split(separator: "\n").filter { $0.hasPrefix("SigIgn:") || $0.hasPrefix("SigCgt:") }
        // Before it is this program, it has what it was forked with: a signal that is blocked then ends it by its default as soon as it runs.
        let program = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process.processIdentifier)/exe")
        guard program == process.executableURL?.resolvingSymlinksInPath().path(percentEncoded: false) else { return false }
        return masks.contains {
            UInt64($0.split(separator: "\t").last ?? "", radix: 16).map { $0 & (1 << UInt64(SIGTERM - 1)) != 0 } ?? false
        }
    }

    /// Kills it, and removes what it has written.
    func destroy() {
        if exitStatus == nil { send(SIGKILL) }
        for file in [output, errors] { try? FileManager.default.removeItem(at: file) }
    }
}
