// The numbers of the protocol, each a type of its own: a fence is compared with a fence, and units are taken from units.
//
// Each costs what the number within costs.

/// A product's id: 1 to 2^63-1.
public struct ProductID: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// The number itself.
    public let rawValue: Int64

    /// Wraps a number that the caller has checked to be 1 or more.
    public init(_ rawValue: Int64) { self.rawValue = rawValue }

    /// Orders by number.
    public static func < (left: ProductID, right: ProductID) -> Bool { left.rawValue < right.rawValue }
    /// The number in decimal.
    public var description: String { String(rawValue) }
}

/// A number of the protocol. A type that conforms says what the number counts, and has nothing else.
public protocol ProtocolNumber: Hashable, Comparable, Sendable, ExpressibleByIntegerLiteral, CustomStringConvertible {
    /// The number itself.
    var rawValue: Int64 { get }

    /// Wraps a number.
    init(_ rawValue: Int64)
}

extension ProtocolNumber {
    /// Wraps a number that stands in the source.
    @inlinable
    public init(integerLiteral value: Int64) { self.init(value) }

    /// Whether both are the same number.
    @inlinable
    public static func == (left: Self, right: Self) -> Bool { left.rawValue == right.rawValue }
    /// Orders by number.
    @inlinable
    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    /// Hashes the number.
    @inlinable
    public func hash(into hasher: inout Hasher) { hasher.combine(rawValue) }
    /// The number in decimal.
    public var description: String { String(rawValue) }
}

/// A product's fence: a number in PostgreSQL that only grows. Redis serves what was installed under one fence. 0 stands for *none*.
@frozen
public struct Fence: ProtocolNumber {
    /// The number itself.
    public let rawValue: Int64

    /// Wraps a number.
    @inlinable
    public init(_ rawValue: Int64) { self.rawValue = rawValue }
}

/// Tells one reservation of a key from another under the same fence. 0 stands for *none*.
@frozen
public struct Token: ProtocolNumber {
    /// The number itself.
    public let rawValue: Int64

    /// Wraps a number.
    @inlinable
    public init(_ rawValue: Int64) { self.rawValue = rawValue }
}

/// A number of units: 1 to 1,000,000,000 in a request. What changes a stock, and may be negative, is a plain number.
@frozen
public struct Quantity: ProtocolNumber {
    /// The number itself.
    public let rawValue: Int64

    /// Wraps a number.
    @inlinable
    public init(_ rawValue: Int64) { self.rawValue = rawValue }
}
