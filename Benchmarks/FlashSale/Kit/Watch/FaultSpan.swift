/// A fault as it really was, on the sale's own clock.
public struct FaultSpan: Equatable, Sendable {
    /// The server that it was done to.
    public var server: String
    /// What was done, such as `killed`.
    public var what: String
    /// When it began, in seconds since the opening.
    public var from: Double
    /// When it was undone; nil while it is not, and 0 seconds later for one that needs no undoing.
    public var to: Double?

    /// The fault in words.
    public var words: String { "\(server) was \(what)" }
}
