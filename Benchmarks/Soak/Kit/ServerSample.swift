import Foundation

/// What one server's process holds at a moment.
public struct ServerSample: Equatable, Sendable {
    /// The server's name in the stack, such as `product-1`.
    public var server: String
    /// The process id, which changes when a server is restarted.
    public var pid: Int
    /// Seconds since the load began.
    public var seconds: Double
    /// Resident memory in bytes.
    public var memory: Int
    /// Open file descriptors.
    public var descriptors: Int

    /// Makes a sample.
    public init(server: String, pid: Int, seconds: Double, memory: Int, descriptors: Int) {
        self.server = server
        self.pid = pid
        self.seconds = seconds
        self.memory = memory
        self.descriptors = descriptors
    }

    /// Reads `VmRSS` of `/proc/PID/status`, in bytes.
    static func memory(status text: String) -> Int? {
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") }),
            let kilobytes = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap({ Int($0) })
        else { return nil }
        let (bytes, overflow) = kilobytes.multipliedReportingOverflow(by: 1_024)
        return overflow ? nil : bytes
    }
}

/// Looks at the processes of a stack's own servers, by the pids in the stack's folder.
struct ServerWatch: Sendable {
    /// Why a server cannot be looked at.
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    let folder: String
    let servers: [String]

    /// - Parameter folder: the stack's, which has a folder for each server.
    init(folder: String) throws {
        self.folder = folder
        let names = try FileManager.default.contentsOfDirectory(atPath: folder)
        servers = names.filter { $0.hasPrefix("product-") || $0.hasPrefix("order-") }.filter {
            FileManager.default.fileExists(atPath: "\(folder)/\($0)/pid")
        }.sorted()
        guard !servers.isEmpty else { throw Failure(description: "the stack in \(folder) has no product or order server") }
    }

    /// One look at all of them.
    /// - Throws: `Failure` naming a server whose process is gone.
    func look(seconds: Double) throws -> [ServerSample] {
        try servers.map { server in
            let record = (try? String(contentsOfFile: "\(folder)/\(server)/pid", encoding: .utf8)) ?? ""
            guard let pid = record.split(separator: " ").first.flatMap({ Int($0) }),
                let status = try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8),
                let memory = ServerSample.memory(status: status),
                let descriptors = try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").count
            else { throw Failure(description: "\(server) has no process any more") }
            return ServerSample(server: server, pid: pid, seconds: seconds, memory: memory, descriptors: descriptors)
        }
    }
}
