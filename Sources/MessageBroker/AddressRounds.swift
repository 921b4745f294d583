// The order in which a broker's addresses are tried.
//
// Invariant: in one round each address is tried at most once, in random order, so that many servers spread over the nodes. The first address of a round is not
//   the one that failed last, unless there is no other: a node that takes connections and answers nothing is left behind at once.
// Bounds: a round has as many attempts as there are addresses; between two rounds the caller pauses.

/// Chooses the address of each attempt to connect. A value without clock or randomness of its own.
struct AddressRounds {
    /// What follows a failure.
    enum Step: Hashable {
        /// Another address of this round is tried at once.
        case goOn
        /// Each address was tried once: time to pause. The next round begins then.
        case pause
    }

    private let count: Int
    /// Addresses that this round has not tried yet.
    private var untried: [Int]
    /// Where the last failure was.
    private var last: Int?
    /// The address of the attempt or the connection that there is.
    private var current: Int?

    /// - Parameter count: how many addresses there are, one or more.
    init(count: Int) {
        self.count = max(1, count)
        untried = Array(0..<self.count)
    }

    /// The address of the next attempt, as an index below the count.
    mutating func next(using random: inout some RandomNumberGenerator) -> Int {
        if untried.isEmpty { untried = Array(0..<count) }
        let others = untried.count == count ? untried.filter { $0 != last } : untried
        let chosen = others.randomElement(using: &random) ?? untried[0]
        untried.removeAll { $0 == chosen }
        current = chosen
        return chosen
    }

    /// The attempt failed, or its connection ended.
    ///
    /// - Parameter wasProven: whether the connection had lived for long. Then this failure is the first one of a new round, in which all other addresses are tried.
    mutating func failed(wasProven: Bool) -> Step {
        if wasProven { untried = (0..<count).filter { $0 != current } }
        last = current
        current = nil
        return untried.isEmpty ? .pause : .goOn
    }
}
