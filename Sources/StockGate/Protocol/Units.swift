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

/// A product's fence: a number in PostgreSQL that only grows. Redis serves what was installed under one fence. 0 stands for *none*.
@frozen
public struct Fence: Hashable, Comparable, Sendable, ExpressibleByIntegerLiteral, CustomStringConvertible {
    /// The number itself.
    public let rawValue: Int64

    /// Wraps a number.
    @inlinable
    public init(_ rawValue: Int64) { self.rawValue = rawValue }

    /// Wraps a number that stands in the source.
    @inlinable
    public init(integerLiteral value: Int64) { rawValue = value }

    /// Whether both are the same number.
    @inlinable
    public static func == (left: Fence, right: Fence) -> Bool { left.rawValue == right.rawValue }
    /// Orders by number.
    @inlinable
    public static func < (left: Fence, right: Fence) -> Bool { left.rawValue < right.rawValue }
    /// Hashes the number.
    @inlinable
    public func hash(into hasher: inout Hasher) { hasher.combine(rawValue) }
    /// The number in decimal.
    public var description: String { String(rawValue) }
}

/// Tells one reservation of a key from another under the same fence. 0 stands for *none*.
@frozen
public struct Token: Hashable, Comparable, Sendable, ExpressibleByIntegerLiteral, CustomStringConvertible {
    /// The number itself.
    public let rawValue: Int64

    /// Wraps a number.
    @inlinable
    public init(_ rawValue: Int64) { self.rawValue = rawValue }

    /// Wraps a number that stands in the source.
    @inlinable
    public init(integerLiteral value: Int64) { rawValue = value }

    /// Whether both are the same number.
    @inlinable
    public static func == (left: Token, right: Token) -> Bool { left.rawValue == right.rawValue }
    /// Orders by number.
    @inlinable
    public static func < (left: Token, right: Token) -> Bool { left.rawValue < right.rawValue }
    /// Hashes the number.
    @inlinable
    public func hash(into hasher: inout Hasher) { hasher.combine(rawValue) }
    /// The number in decimal.
    public var description: String { String(rawValue) }
}

/// A number of units: 1 to 1,000,000,000 in a request. What changes a stock, and may be negative, is a plain number.
@frozen
public struct Quantity: Hashable, Comparable, Sendable, ExpressibleByIntegerLiteral, CustomStringConvertible {
    /// The number itself.
    public let rawValue: Int64

    /// Wraps a number.
    @inlinable
    public init(_ rawValue: Int64) { self.rawValue = rawValue }

    /// Wraps a number that stands in the source.
    @inlinable
    public init(integerLiteral value: Int64) { rawValue = value }

    /// Whether both are the same number.
    @inlinable
    public static func == (left: Quantity, right: Quantity) -> Bool { left.rawValue == right.rawValue }
    /// Orders by number.
    @inlinable
    public static func < (left: Quantity, right: Quantity) -> Bool { left.rawValue < right.rawValue }
    /// Hashes the number.
    @inlinable
    public func hash(into hasher: inout Hasher) { hasher.combine(rawValue) }
    /// The number in decimal.
    public var description: String { String(rawValue) }
}
