/// What is taken away under load.
public enum Casualty: String, Codable, Sendable, CaseIterable {
    /// Killed, and started again as it is configured.
    case redis = "Redis"
    /// Killed, and started again.
    case database
    /// The process that answers the buyers: killed, and started again.
    case process
}

/// The books of one side when everything runs again, all in units.
struct LossBooks: Equatable, Sendable {
    /// Units that were put on sale.
    var initial: Int64
    /// Buyers that were told of success, each of one unit.
    var told: Int64
    /// Requests without a clear answer: a closed connection, a 5xx. Each may have sold a unit.
    var unknown: Int64
    /// Units that are left, by the store that the side takes for the truth.
    var truth: Int64
    /// Units that buyers can still get: those that the gate and the truth both have.
    var sellable: Int64

    /// Units that nobody has and nobody can buy any more.
    var missing: Int64 {
        // More units are gone than buyers can have, or Redis does not know how many are left.
        max(0, initial - truth - told - unknown) + max(0, truth - sellable)
    }

    /// Units whose buyers were told of success and that the truth still has: somebody else will buy them too.
    var soldTwice: Int64 { max(0, told - (initial - truth)) }
}

/// One line of the table of losses.
public struct Loss: Codable, Equatable, Sendable {
    /// The side that lost.
    public var side: Side
    /// What was killed.
    public var killed: Casualty
    /// Buyers that were told of success.
    public var told: Int64
    /// Requests without a clear answer.
    public var unknown: Int64
    /// Units that nobody has and nobody can buy any more.
    public var missing: Int64
    /// Units that were sold, and will be sold again.
    public var soldTwice: Int64
    /// Whether a program had to be started again by hand before it served: a killed one is not counted.
    public var neededRestart: Bool

    init(_ side: Side, _ killed: Casualty, _ books: LossBooks, neededRestart: Bool) {
        self.side = side
        self.killed = killed
        told = books.told
        unknown = books.unknown
        missing = books.missing
        soldTwice = books.soldTwice
        self.neededRestart = neededRestart
    }
}
