import Foundation
import Synchronization

/// Answers one connection as PgBouncer 1.18 does, in front of a real server.
///
/// It stands for the pooler in what a client sees of it at first: it refuses `options`, or, where it was told to ignore them, drops them and answers with a process id
/// of its own. Pooling itself it leaves out.
final class PoolerStandIn: Sendable {
    enum Options: Sendable { case refused, ignored, kept }

    let port: Int
    private let listener: Int32

    /// - Parameter server: the port of the server behind it, on loopback
    init(before server: Int, options: Options) throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = Self.address(0)
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isListening = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, size) == 0 && listen(listener, 4) == 0 && getsockname(listener, $0, &size) == 0
            }
        }
        guard isListening else { throw POSIXError(.EADDRINUSE) }
        self.listener = listener
        port = Int(UInt16(bigEndian: address.sin_port))
        Thread.detachNewThread {
            // Ends when the listener is closed.
            while true {
                let client = accept(listener, nil, nil)
                if client < 0 { return }
                Self.serve(client, server, options)
            }
        }
    }

    func stop() {
        // Wakes `accept`, which a close alone does not.
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
    }

    private static func address(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return address
    }

    private static func serve(_ client: Int32, _ server: Int, _ options: Options) {
        defer { close(client) }
        var startup = message(from: client, hasType: false)
        // SSLRequest and GSSENCRequest: no.
        while startup.count == 8 {
            write(client, "N", 1)
            startup = message(from: client, hasType: false)
        }
        guard startup.count > 8 else { return }
        if case .refused = options {
            return send(packet("E", Array("SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0".utf8)), to: client)
        }
        let upstream = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(upstream) }
        var target = address(server)
        let isConnected = withUnsafePointer(to: &target) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(upstream, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 }
        }
        guard isConnected else { return }
        send(isIgnored(options) ? withoutOptions(startup) : startup, to: upstream)
        // Until the client may send: BackendKeyData gets a process id that no server has.
        while true {
            var answer = message(from: upstream, hasType: true)
            guard let type = answer.first else { return }
            if type == UInt8(ascii: "K") { answer.replaceSubrange(5..<9, with: [0x70, 0, 0, 1]) }
            send(answer, to: client)
            if type == UInt8(ascii: "Z") || type == UInt8(ascii: "E") { break }
        }
        var ends = [pollfd(fd: client, events: Int16(POLLIN), revents: 0), pollfd(fd: upstream, events: Int16(POLLIN), revents: 0)]
        while poll(&ends, 2, -1) > 0 {
            for (index, other) in [(0, upstream), (1, client)] where ends[index].revents != 0 {
                var bytes = [UInt8](repeating: 0, count: 4096)
                let count = read(ends[index].fd, &bytes, bytes.count)
                if count <= 0 { return }
                send(Array(bytes[..<count]), to: other)
            }
        }
    }

    private static func isIgnored(_ options: Options) -> Bool { if case .ignored = options { true } else { false } }

    /// A startup message is its length, its version, and texts that end with zero in pairs.
    private static func withoutOptions(_ startup: [UInt8]) -> [UInt8] {
        let texts = startup.dropFirst(8).split(separator: 0, omittingEmptySubsequences: false).map { Array($0) }
        var body = Array(startup[4..<8])
        for index in stride(from: 0, to: texts.count - 1, by: 2) where !texts[index].isEmpty && texts[index] != Array("options".utf8) {
            body += texts[index] + [0] + texts[index + 1] + [0]
        }
        return word(body.count + 5) + body + [0]
    }

    private static func word(_ number: Int) -> [UInt8] { withUnsafeBytes(of: UInt32(number).bigEndian) { Array($0) } }

    private static func packet(_ type: Character, _ body: [UInt8]) -> [UInt8] { Array(String(type).utf8) + word(body.count + 4) + body }

    private static func message(from descriptor: Int32, hasType: Bool) -> [UInt8] {
        let head = bytes(hasType ? 5 : 4, from: descriptor)
        guard head.count == (hasType ? 5 : 4) else { return [] }
        let length = head.suffix(4).reduce(0) { $0 << 8 | Int($1) }
        return head + bytes(max(0, length - 4), from: descriptor)
    }

    private static func bytes(_ count: Int, from descriptor: Int32) -> [UInt8] {
        var result: [UInt8] = []
        while result.count < count {
            var buffer = [UInt8](repeating: 0, count: count - result.count)
            let received = read(descriptor, &buffer, buffer.count)
            if received <= 0 { return [] }
            result += buffer[..<received]
        }
        return result
    }

    private static func send(_ bytes: [UInt8], to descriptor: Int32) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let sent = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if sent <= 0 { return }
            rest = rest.dropFirst(sent)
        }
    }
}
