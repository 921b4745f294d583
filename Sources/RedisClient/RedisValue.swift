/// A reply of Redis (RESP2), wholly owned by Swift.
public enum RedisValue: Sendable, Hashable {
    /// The null bulk string or null array.
    case null
    /// `:n`
    case integer(Int64)
    /// `+text`, such as `OK`.
    case simpleString(String)
    /// `$n` bytes, binary-safe.
    case bulkString([UInt8])
    /// `*n` values.
    case array([RedisValue])
    /// `-KIND message`, inside an array. On the top level a command fails with it instead.
    case error(RedisServerError)

    /// The integer of an integer reply, or of a string that is a decimal number and nothing else.
    @inlinable
    public var int: Int64? {
        switch self {
        case .integer(let value): value
        case .bulkString(let bytes): Self.decimal(bytes)
        case .simpleString(let text): Int64(text)
        case .null, .array, .error: nil
        }
    }

    /// The text of a simple or bulk string; invalid UTF-8 is repaired.
    public var string: String? {
        switch self {
        case .simpleString(let text): text
        case .bulkString(let bytes): String(decoding: bytes, as: UTF8.self)
        case .null, .integer, .array, .error: nil
        }
    }

    /// The bytes of a bulk or simple string.
    public var bytes: [UInt8]? {
        switch self {
        case .bulkString(let bytes): bytes
        case .simpleString(let text): Array(text.utf8)
        case .null, .integer, .array, .error: nil
        }
    }

    /// The elements of an array.
    @inlinable
    public var array: [RedisValue]? {
        if case .array(let values) = self { values } else { nil }
    }

    /// Whether this is null.
    @inlinable
    public var isNull: Bool {
        if case .null = self { true } else { false }
    }

    @usableFromInline
    static func decimal(_ bytes: [UInt8]) -> Int64? {
        var digits = bytes[...]
        let negative = digits.first == UInt8(ascii: "-")
        if negative { digits = digits.dropFirst() }
        guard !digits.isEmpty else { return nil }
        var result: Int64 = 0
        for byte in digits {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
            let (shifted, overflowed) = result.multipliedReportingOverflow(by: 10)
            let digit = Int64(byte &- UInt8(ascii: "0"))
            // Negative numbers are built downwards: Int64.min has no positive counterpart in 64 bits.
            let (next, carried) = negative ? shifted.subtractingReportingOverflow(digit) : shifted.addingReportingOverflow(digit)
            guard !overflowed, !carried else { return nil }
            result = next
        }
        return result
    }
}
