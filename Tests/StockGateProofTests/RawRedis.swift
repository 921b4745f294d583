import Glibc
import Synchronization

/// A reply as it stands on the wire.
indirect enum RawReply: Equatable, CustomStringConvertible {
    case number(Int64)
    case text(String)
    case none
    case list([RawReply])
    case failure(String)

    var description: String {
        switch self {
        case .number(let number): "\(number)"
        case .text(let text): "'\(text)'"
        case .none: "nil"
        case .list(let items): "{\(items.map(\.description).joined(separator: ", "))}"
        case .failure(let text): "!\(text)"
        }
    }
}

/// One blocking connection to Redis that hides nothing: commands out, raw replies in.
final class RawRedis {
    struct Failure: Error {}

    private let socket: Int32
    private var buffer: [UInt8] = []
    private var start = 0

    init(port: Int) throws {
        socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        guard result == 0 else { throw Failure() }
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(socket) }

    func call(_ words: [String]) throws -> RawReply {
        var bytes = Array("*\(words.count)\r\n".utf8)
        for word in words { bytes += Array("$\(word.utf8.count)\r\n\(word)\r\n".utf8) }
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes { send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard count > 0 else { throw Failure() }
            sent += count
        }
        return try reply()
    }

    /// Runs a script with its keys and arguments.
    func eval(_ script: String, keys: [String], _ arguments: [String]) throws -> RawReply {
        try call(["EVAL", script, "\(keys.count)"] + keys + arguments)
    }

    private func reply() throws -> RawReply {
        let line = try line()
        let rest = String(line.dropFirst())
        switch line.first {
        case ":": return .number(Int64(rest) ?? 0)
        case "+": return .text(rest)
        case "-": return .failure(rest)
        case "$":
            guard let count = Int(rest), count >= 0 else { return .none }
            let text = String(decoding: try bytes(count), as: UTF8.self)
            _ = try bytes(2)
            return .text(text)
        case "*":
            guard let count = Int(rest), count >= 0 else { return .none }
            return .list(try (0..<count).map { _ in try reply() })
        default: throw Failure()
        }
    }

    private func line() throws -> String {
        while true {
            if let end = buffer[start...].firstIndex(of: 13), end + 1 < buffer.count {
                let line = String(decoding: buffer[start..<end], as: UTF8.self)
                start = end + 2
                return line
            }
            try fill()
        }
    }

    private func bytes(_ count: Int) throws -> ArraySlice<UInt8> {
        while buffer.count - start < count { try fill() }
        defer { start += count }
        return buffer[start..<start + count]
    }

    private func fill() throws {
        buffer.removeFirst(start)
        start = 0
        var chunk = [UInt8](repeating: 0, count: 65_536)
        let count = recv(socket, &chunk, chunk.count, 0)
        guard count > 0 else { throw Failure() }
        buffer += chunk[..<count]
    }
}
