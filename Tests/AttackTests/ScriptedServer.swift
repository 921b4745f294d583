import Foundation
import Synchronization

/// A server that does with the bytes it gets what a test says, right or wrong.
final class ScriptedServer: Sendable {
    /// What it does next.
    enum Act: Sendable {
        case write(String)
        case pause(milliseconds: Int)
        /// Closes for writing, as a server that has said all.
        case close
        /// Cuts the connection.
        case cut
    }

    let port: Int
    private let listener: Int32

    /// - Parameter script: what is done with what has come, asked whenever something has come and nothing else does for a moment
    init(_ script: @escaping @Sendable (String) -> [Act]) throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        self.listener = listener
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        inet_pton(AF_INET, "127.0.0.1", &address.sin_addr)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isListening = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
                bind(listener, raw, length) == 0 && listen(listener, 16) == 0 && getsockname(listener, raw, &length) == 0
            }
        }
        guard isListening else { throw POSIXError(.EADDRNOTAVAIL) }
        port = Int(in_port_t(bigEndian: address.sin_port))
        Thread.detachNewThread {
            while true {
                let connection = accept(listener, nil, nil)
                guard connection >= 0 else { return }
                Thread.detachNewThread { Self.serve(connection, script) }
            }
        }
    }

    deinit {
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
    }

    private static func serve(_ connection: Int32, _ script: (String) -> [Act]) {
        defer { close(connection) }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(connection, &buffer, buffer.count, 0)
            guard count > 0 else { return }
            var text = String.UnicodeScalarView()
            text.append(contentsOf: buffer[..<count].map { Unicode.Scalar($0) })
            for act in script(String(text)) {
                switch act {
                case .write(let text):
                    let bytes = text.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) }
                    _ = bytes.withUnsafeBytes { send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                case .pause(let milliseconds): usleep(UInt32(milliseconds) * 1_000)
                case .close: shutdown(connection, Int32(SHUT_WR))
                case .cut:
                    var lingering = linger(l_onoff: 1, l_linger: 0)
                    setsockopt(connection, SOL_SOCKET, SO_LINGER, &lingering, socklen_t(MemoryLayout<linger>.size))
                    return
                }
            }
        }
    }
}

/// Answers as a server writes them.
enum Written {
    static let error = "{\"error\":\"VALIDATION_ERROR\",\"message\":\"No.\",\"details\":null}"

    static func answer(_ status: Int, id: String?, body: String = "{}", type: String = "application/json", closes: Bool = false) -> String {
        "HTTP/1.1 \(status) Some Words\r\nContent-Type: \(type)\r\nContent-Length: \(body.unicodeScalars.count)\r\n"
            + (id.map { "X-Request-Id: \($0)\r\n" } ?? "") + (closes ? "Connection: close\r\n" : "") + "\r\n" + body
    }

    static func refusal(_ status: Int = 400, id: String? = "srv-1", closes: Bool = true) -> String {
        answer(status, id: id, body: error, closes: closes)
    }

    /// The ids that the requests in a text carry, in their order.
    static func ids(in text: String) -> [String] {
        text.split(separator: "\r\n").filter { $0.hasPrefix("X-Request-Id: ") }.map { String($0.dropFirst("X-Request-Id: ".count)) }
    }
}
