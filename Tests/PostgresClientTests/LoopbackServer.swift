import Foundation

/// Takes connections on a free loopback port, and serves each on a thread of its own.
final class LoopbackServer: Sendable {
    let port: Int
    private let listener: Int32

    /// - Parameter serve: what is done with one connection, which is closed behind it; nil: clients connect, and nobody ever says a word to them
    init(_ serve: (@Sendable (WireEnd) -> Void)? = nil) throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = WireEnd.loopback(0)
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isListening = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, size) == 0 && listen(listener, 64) == 0 && getsockname(listener, $0, &size) == 0
            }
        }
        guard isListening else { throw POSIXError(.EADDRINUSE) }
        self.listener = listener
        port = Int(UInt16(bigEndian: address.sin_port))
        guard let serve else { return }
        Thread.detachNewThread {
            // Ends when the listener is closed.
            while true {
                let client = accept(listener, nil, nil)
                if client < 0 { return }
                Thread.detachNewThread {
                    serve(WireEnd(descriptor: client))
                    close(client)
                }
            }
        }
    }

    func stop() {
        // Wakes `accept`, which a close alone does not.
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
    }
}

/// One end of a connection that speaks PostgreSQL's protocol (PostgreSQL documentation, "Message Formats").
struct WireEnd {
    /// One message: its letter and its body.
    typealias Message = (letter: Character, body: [UInt8])

    let descriptor: Int32

    static func loopback(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return address
    }

    /// A connection to a port on loopback, which the caller closes; nil if nobody listens there.
    static func connected(to port: Int) -> WireEnd? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var target = loopback(port)
        let isConnected = withUnsafePointer(to: &target) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        if isConnected { return WireEnd(descriptor: descriptor) }
        close(descriptor)
        return nil
    }

    /// The body of the message with which a client begins: the version, and texts in pairs. A client that asks for encryption before is refused it.
    func startup() -> [UInt8]? {
        var startup = body()
        // SSLRequest and GSSENCRequest: no.
        while let asked = startup, asked.count == 4 {
            send([UInt8(ascii: "N")])
            startup = body()
        }
        return startup
    }

    func message() -> Message? {
        guard let letter = bytes(1)?.first, let body = body() else { return nil }
        return (Character(Unicode.Scalar(letter)), body)
    }

    func send(_ messages: [Message]) {
        send(messages.flatMap { letter, body in Array(String(letter).utf8) + Self.framed(body) })
    }

    func send(_ all: [UInt8]) {
        var rest = all[...]
        while !rest.isEmpty {
            let sent = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if sent <= 0 { return }
            rest = rest.dropFirst(sent)
        }
    }

    /// A body behind its length.
    static func framed(_ body: [UInt8]) -> [UInt8] { withUnsafeBytes(of: UInt32(body.count + 4).bigEndian) { Array($0) } + body }

    private func body() -> [UInt8]? {
        guard let head = bytes(4) else { return nil }
        let size = head.reduce(0) { $0 << 8 | Int($1) }
        guard (4...100_000).contains(size) else { return nil }
        return bytes(size - 4)
    }

    private func bytes(_ count: Int) -> [UInt8]? {
        var all: [UInt8] = []
        while all.count < count {
            var part = [UInt8](repeating: 0, count: count - all.count)
            let got = read(descriptor, &part, part.count)
            guard got > 0 else { return nil }
            all += part.prefix(got)
        }
        return all
    }
}
