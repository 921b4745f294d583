public import NIOCore

/// One argument of a command. Integers are written in decimal straight into the outgoing buffer; no `String` is made of them.
public enum RedisArgument: Sendable, Hashable, ExpressibleByStringLiteral, ExpressibleByIntegerLiteral {
    /// Text, sent as UTF-8.
    case string(String)
    /// A decimal number.
    case integer(Int64)
    /// Bytes as they are.
    case bytes([UInt8])
    /// The readable bytes of a buffer.
    case buffer(ByteBuffer)

    /// Text.
    public init(stringLiteral value: String) { self = .string(value) }

    /// A number.
    public init(integerLiteral value: Int64) { self = .integer(value) }
}
