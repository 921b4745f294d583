import NIOCore

/// The id of a request in answers, logs and the calls that it causes. It becomes a text only when somebody asks for one: most requests of a rush are answered
/// before that.
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

    /// Whether bytes may be passed on as an `X-Request-Id`: 1 to 128 of `A-Z a-z 0-9 . _ : -`.
    @inlinable
    package static func isRequestID(_ bytes: some Collection<UInt8>) -> Bool {
        (1...128).contains(bytes.count)
            && bytes.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
                default: byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ":") || byte == UInt8(ascii: "-")
                }
            }
    }
}

extension ByteBuffer {
    /// Writes a request's id. One that was made here is 16 hexadecimal digits, a hyphen, and a decimal number.
    package mutating func writeRequestID(_ id: HotRequestID) {
        switch id {
        case .given(let text): writeString(text)
        case .made(let connection, let number):
            writeInteger(ByteBuffer.hexadecimal(UInt32(truncatingIfNeeded: connection >> 32)))
            writeInteger(ByteBuffer.hexadecimal(UInt32(truncatingIfNeeded: connection)))
            writeInteger(UInt8(ascii: "-"))
            writeString(String(number))
        }
    }

    /// Eight hexadecimal digits in lower case, the first of them in the highest byte. All eight are made at once: this stands in every answer.
    private static func hexadecimal(_ number: UInt32) -> UInt64 {
        // Each four bits get a byte of their own.
        var digits = UInt64(number)
        digits = (digits | digits << 16) & 0x0000_FFFF_0000_FFFF
        digits = (digits | digits << 8) & 0x00FF_00FF_00FF_00FF
        digits = (digits | digits << 4) & 0x0F0F_0F0F_0F0F_0F0F
        // `letters` has 1 in each byte of ten and more. Each sum fits into its byte: the first is at most 15 + 6, the second at most 15 + 0x30 + 0x27.
        let letters = ((digits &+ 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101
        return digits &+ 0x3030_3030_3030_3030 &+ letters &* 0x27
    }
}
