import NIOCore

/// What a request is called in answers, logs and the calls that it causes, before anybody needs it as a text: most requests of a rush are answered without one.
public enum HotRequestID: Sendable, Equatable, CustomStringConvertible {
    /// The caller's `X-Request-Id`.
    case given(String)
    /// A random number of the connection's, and the request's number on it.
    case made(connection: UInt64, number: UInt64)

    /// The id as it stands in headers and logs.
    public var description: String {
        switch self {
        case .given(let text): return text
        case .made:
            var buffer = ByteBuffer()
            buffer.writeRequestID(self)
            return String(buffer: buffer)
        }
    }
}

extension ByteBuffer {
    /// Writes a request's id. One that was made here is 16 hexadecimal digits, a hyphen, and a decimal number.
    mutating func writeRequestID(_ id: HotRequestID) {
        switch id {
        case .given(let text): self.writeString(text)
        case .made(var connection, let number):
            // 16 digits of 4 bits each.
            for _ in 0..<16 {
                let digit = UInt8(truncatingIfNeeded: connection >> 60)
                self.writeInteger(digit < 10 ? 0x30 + digit : 0x57 + digit)
                connection <<= 4
            }
            self.writeInteger(UInt8(ascii: "-"))
            self.writeString(String(number))
        }
    }
}
