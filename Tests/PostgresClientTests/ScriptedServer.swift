import Foundation

/// Lets clients in as PostgreSQL does, and answers every simple query with the bytes that a script has for it. It stays open whatever it has said.
final class ScriptedServer: Sendable {
    /// One message of the server: its letter and its body.
    typealias Message = (letter: Character, body: [UInt8])

    let port: Int
    private let listener: Int32

    /// - Parameter script: the messages before `ReadyForQuery`, by the query's text
    init(_ script: @escaping @Sendable (String) -> [Message]) throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isListening = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, size) == 0 && listen(listener, 16) == 0 && getsockname(listener, $0, &size) == 0
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
                Thread.detachNewThread { Self.serve(client, script) }
            }
        }
    }

    func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
    }

    static let complete: Message = ("C", Array("SELECT 0\0".utf8))
    private static let ready: Message = ("Z", Array("I".utf8))

    /// An error or a notice with these fields, by their letters (PostgreSQL documentation, "Error and Notice Message Fields").
    static func report(_ letter: Character, _ fields: [(Character, String)]) -> Message {
        (letter, fields.flatMap { Array(String($0).utf8) + Array($1.utf8) + [0] } + [0])
    }

    private static func serve(_ client: Int32, _ script: (String) -> [Message]) {
        defer { close(client) }
        var startup = body(client)
        // SSLRequest and GSSENCRequest: no.
        while let asked = startup, asked.count == 4 {
            send(client, [UInt8(ascii: "N")])
            startup = body(client)
        }
        guard startup != nil else { return }
        send(client, [("R", [0, 0, 0, 0]), ("K", [0, 0, 0, 1, 0, 0, 0, 1]), ready])
        while let letter = bytes(client, 1)?.first, let text = body(client), letter == UInt8(ascii: "Q") {
            send(client, script(String(decoding: text.dropLast(), as: UTF8.self)) + [ready])
        }
    }

    private static func send(_ client: Int32, _ messages: [Message]) {
        var all: [UInt8] = []
        for (letter, body) in messages {
            all += Array(String(letter).utf8) + withUnsafeBytes(of: UInt32(body.count + 4).bigEndian) { Array($0) } + body
        }
        send(client, all)
    }

    private static func send(_ client: Int32, _ all: [UInt8]) { _ = Glibc.send(client, all, all.count, Int32(MSG_NOSIGNAL)) }

    private static func body(_ client: Int32) -> [UInt8]? {
        guard let head = bytes(client, 4) else { return nil }
        let size = head.reduce(0) { $0 << 8 | Int($1) }
        guard (4...100_000).contains(size) else { return nil }
        return bytes(client, size - 4)
    }

    private static func bytes(_ client: Int32, _ count: Int) -> [UInt8]? {
        var all: [UInt8] = []
        while all.count < count {
            var part = [UInt8](repeating: 0, count: count - all.count)
            let got = read(client, &part, part.count)
            guard got > 0 else { return nil }
            all += part.prefix(got)
        }
        return all
    }
}
