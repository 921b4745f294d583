/// A value in a message's headers or in the arguments of a queue.
public indirect enum HeaderValue: Sendable, Hashable {
    /// UTF-8 text.
    case string(String)
    /// A whole number of any width.
    case integer(Int64)
    /// A floating-point number.
    case double(Double)
    /// A truth value.
    case boolean(Bool)
    case bytes([UInt8])
    /// Seconds since 1970.
    case timestamp(seconds: UInt64)
    case list([HeaderValue])
    case table([String: HeaderValue])
    case null

    /// The text, or nil if it is another kind.
    public var string: String? {
        if case .string(let value) = self { value } else { nil }
    }

    /// The number, or nil if it is another kind.
    public var integer: Int64? {
        if case .integer(let value) = self { value } else { nil }
    }

    /// An upper bound of the value's size on the wire, in bytes.
    var encodedBytes: Int {
        switch self {
        case .string(let value): 5 + value.utf8.count
        case .bytes(let value): 5 + value.count
        case .integer, .double, .timestamp, .boolean, .null: 9
        case .list(let values): values.reduce(5) { $0 + $1.encodedBytes }
        case .table(let values): values.encodedBytes + 1
        }
    }

    /// How many levels of lists and tables are nested in each other.
    var depth: Int {
        switch self {
        case .list(let values): 1 + (values.map(\.depth).max() ?? 0)
        case .table(let values): 1 + (values.values.map(\.depth).max() ?? 0)
        default: 0
        }
    }
}

extension [String: HeaderValue] {
    /// An upper bound of the table's size on the wire, in bytes.
    var encodedBytes: Int { reduce(4) { $0 + 1 + $1.key.utf8.count + $1.value.encodedBytes } }
}

extension HeaderValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral {
    /// Text.
    public init(stringLiteral value: String) { self = .string(value) }
    /// A number.
    public init(integerLiteral value: Int64) { self = .integer(value) }
    /// A truth value.
    public init(booleanLiteral value: Bool) { self = .boolean(value) }
}
