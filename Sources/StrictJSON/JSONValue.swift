/// A JSON value held in memory: what an error's `details` and a health check's detail are made of.
///
/// Requests are not read into this type (see ``JSONObjectReader``); it is for values that a server makes.
public indirect enum JSONValue: Sendable, Equatable {
    /// `null`
    case null
    /// `true` or `false`
    case bool(Bool)
    /// A number written without fraction and exponent that fits 64 bits.
    case int(Int64)
    /// Any other number.
    case double(Double)
    case string(String)
    case array([JSONValue])
    /// An object; the order of its members is kept.
    case object([JSONMember])

    /// The member with this name, if this is an object that has it.
    public subscript(_ name: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.name == name }?.value
    }
}

/// One `"name": value` of a JSON object.
public struct JSONMember: Sendable, Equatable {
    /// The member's name.
    public var name: String
    /// The member's value.
    public var value: JSONValue

    /// Makes a member.
    public init(_ name: String, _ value: JSONValue) {
        self.name = name
        self.value = value
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral, ExpressibleByNilLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    /// `.string`
    public init(stringLiteral value: String) { self = .string(value) }
    /// `.int`
    public init(integerLiteral value: Int64) { self = .int(value) }
    /// `.bool`
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    /// `.null`
    public init(nilLiteral: ()) { self = .null }
    /// `.array`
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    /// `.object`, members in the order written.
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(elements.map { JSONMember($0.0, $0.1) })
    }
}
