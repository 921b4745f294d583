// A server that the attack starts itself, beside those of the stack: its timeouts are short, and its memory, descriptors and exit status can be seen.
//
// Bounds: it is waited for at most a minute; a watcher ends it when this process is gone.

import FlashSaleKit
import Foundation
import Synchronization

/// One server process.
final class ServerProcess: Sendable {
    let name: String
    let port: Int
    let adminPort: Int
    private let log: String
    private let child: ChildProcess
    private let exit = Mutex<Int32?>(nil)

    private var pid: pid_t { child.pid }

    /// Starts `product-server` or `order-server` on free ports, and waits until it is ready. Call it on a thread that may wait.
    /// - Parameters:
    ///   - environment: its settings
    init(_ program: String, binaries: String, environment: [String: String]) throws {
        name = program
        let file = FileManager.default.temporaryDirectory.appendingPathComponent(
            "stockgate-attack-\(program)-\(UUID().uuidString.prefix(8)).log"
        )
        log = file.path
        child = try ChildProcess(["\(binaries)/\(program)"], environment: environment, log: file.path, isLogKept: false)
        let pid = child.pid
        let deadline = ContinuousClock.now + .seconds(60)
        while true {
            let text = (try? String(contentsOfFile: file.path, encoding: .utf8)) ?? ""
            if let line = text.split(separator: "\n").first(where: { $0.contains(" ready: public ") }) {
                let ports = line.split(separator: ":").compactMap { Int($0.prefix { $0.isNumber }) }
                guard ports.count == 2 else { throw ChildProcess.Failure(description: "\(program) says: \(line)") }
                (port, adminPort) = (ports[0], ports[1])
                return
            }
            var status: Int32 = 0
            if waitpid(pid, &status, WNOHANG) == pid {
                throw ChildProcess.Failure(description: "\(program) ended while it was starting: \(text.suffix(600))")
            }
            guard ContinuousClock.now < deadline else {
                kill(pid, SIGKILL)
                waitpid(pid, &status, 0)
                throw ChildProcess.Failure(description: "\(program) is not ready after a minute: \(text.suffix(600))")
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
        try? FileManager.default.removeItem(atPath: log)
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

    /// How many connections from these ports the server has open. The kernel keeps a connection whose answers were not read after the server has closed it, so
    /// neither the client's socket nor the connection's state says that.
    func connections(from ports: Set<Int>) -> Int {
        let table = (try? String(contentsOfFile: "/proc/net/tcp", encoding: .utf8)) ?? ""
        return table.split(separator: "\n").count { line in
            // The number of the line, the server's address, the client's, the state, and in the tenth place the inode: 0 where no process has the socket.
            let fields = line.split(separator: " ")
            guard fields.count > 9, fields[9] != "0", Self.port(fields[1]) == port, let client = Self.port(fields[2]) else { return false }
            return ports.contains(client)
        }
    }

    /// The port of an address such as `0100007F:1F90`.
    private static func port(_ address: Substring) -> Int? { Int(address.drop { $0 != ":" }.dropFirst(), radix: 16) }

    /// Whether the server comes down to so many descriptors before the time is over.
    func hasDescriptors(atMost count: Int, within bound: Duration) -> Bool {
        comesDown(to: count, within: bound, while: { [] }) { self.descriptors }
    }

    /// Whether the server closes all connections from these ports before the time is over.
    /// - Parameters:
    ///   - bound: counts anew whenever `progress` has another value, up to two minutes in all, or up to `bound` where that is longer
    ///   - progress: figures that change as long as the server still works
    func closes(connectionsFrom ports: Set<Int>, within bound: Duration, while progress: () -> [Int]) -> Bool {
        comesDown(to: 0, within: bound, while: progress) { self.connections(from: ports) }
    }

    private func comesDown(to count: Int, within bound: Duration, while progress: () -> [Int], _ present: () -> Int) -> Bool {
        let end = ContinuousClock.now + max(bound, .seconds(120))
        var (seen, deadline) = (progress(), ContinuousClock.now + bound)
        while present() > count {
            let now = progress()
            if now != seen { (seen, deadline) = (now, ContinuousClock.now + bound) }
            guard ContinuousClock.now < min(deadline, end) else { return false }
            usleep(20_000)
        }
        return true
    }

    /// The end of its log.
    var lastLines: String { child.lastLines }
}
