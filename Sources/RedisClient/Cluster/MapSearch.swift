import NIOCore

/// One search for the map of a cluster's slots: which node is asked next, and whose map is used. No sockets, clocks or randomness.
///
/// Each node has a view of its own, and views differ while a change spreads. Nodes number the configurations of the cluster: each failover, and each slot that
/// is handed over, has a greater *epoch*. A map is used at once if its epoch is greater than that of the map in use, if it equals the map in use, or if it comes
/// from the node that a redirection has named, which knows best which slots it serves. Other maps are put aside: those of an older epoch, a different map under
/// the same epoch, and those of a node that says that the cluster is down, as a node does that is cut off from the others. A map that was put aside is used only
/// if more than half of the nodes have answered and none of them had a better one. (An epoch falls when an operator makes the cluster anew.)
///
/// Bounds: one question for each node, and `maximumAsked` in all; none begins after `ends`.
struct MapSearch {
    static let maximumAsked = 16

    /// A map, and the node that it comes from.
    struct Answer: Sendable, Equatable {
        var map: SlotMap
        /// The number of the configuration; nil where the node does not tell.
        var epoch: Int64?
        /// Whether the node says that the cluster is well.
        var isWell: Bool
        var saidBy: RedisEndpoint
    }

    enum Reply: Sendable {
        case map(Answer)
        case failed(String)
    }

    enum Step: Equatable {
        case ask(RedisEndpoint)
        case found(Answer)
        case failed
    }

    private let count: Int
    private let inUse: Answer?
    private let named: RedisEndpoint?
    private let ends: NIODeadline
    private var unasked: ArraySlice<RedisEndpoint>
    /// Maps that are used only if no node has a better one, the best last.
    private var aside: [Answer] = []
    private var answers = 0
    /// What was wrong with each node.
    private(set) var troubles: [(node: RedisEndpoint, why: String)] = []

    /// - Parameters:
    ///   - order: the nodes in the order in which they are asked, each once.
    ///   - named: the node that a redirection has named since the last search.
    ///   - inUse: what was found last.
    ///   - ends: after this time no further question begins.
    init(order: [RedisEndpoint], named: RedisEndpoint?, inUse: Answer?, ends: NIODeadline) {
        let asked = order.prefix(Self.maximumAsked)
        count = asked.count
        unasked = asked
        self.named = named
        self.inUse = inUse
        self.ends = ends
    }

    /// The order of the next search: the node that a redirection has named, then masters of the map in use and the seeds, shuffled, so that many servers do not all
    /// ask the same one; those that failed last time come last.
    static func order(
        seeds: [RedisEndpoint],
        masters: [RedisEndpoint],
        named: RedisEndpoint?,
        failed: Set<RedisEndpoint>,
        using generator: inout some RandomNumberGenerator
    ) -> [RedisEndpoint] {
        var known: Set<RedisEndpoint> = []
        if let named { known.insert(named) }
        let first = masters.filter { known.insert($0).inserted }.shuffled(using: &generator)
        let second = seeds.filter { known.insert($0).inserted }.shuffled(using: &generator)
        let others = first + second
        return (named.map { [$0] } ?? []) + others.filter { !failed.contains($0) } + others.filter { failed.contains($0) }
    }

    mutating func begin(now: NIODeadline) -> Step { next(now: now) }

    mutating func replied(_ node: RedisEndpoint, _ reply: Reply, now: NIODeadline) -> Step {
        switch reply {
        case .failed(let why): troubles.append((node, why))
        case .map(let answer):
            answers += 1
            guard let why = objection(to: answer) else { return .found(answer) }
            troubles.append((node, why))
            let index = aside.firstIndex { Self.isBetter($0, than: answer) } ?? aside.endIndex
            aside.insert(answer, at: index)
        }
        return next(now: now)
    }

    /// Why a map is put aside; nil if it is used.
    private func objection(to answer: Answer) -> String? {
        guard answer.isWell else { return "it says that the cluster is down" }
        guard let inUse = self.inUse, let known = inUse.epoch, let epoch = answer.epoch, answer.map != inUse.map else { return nil }
        if epoch < known { return "its map is of an older configuration than the one in use" }
        if epoch == known, answer.saidBy != named { return "its map is another one than the one in use, of the same configuration" }
        return nil
    }

    private static func isBetter(_ one: Answer, than other: Answer) -> Bool {
        if one.isWell != other.isWell { return one.isWell }
        return (one.epoch ?? 0) > (other.epoch ?? 0)
    }

    private mutating func next(now: NIODeadline) -> Step {
        guard now < ends else { return .failed }
        if let node = unasked.popFirst() { return .ask(node) }
        guard answers * 2 > count, let best = aside.last else { return .failed }
        return .found(best)
    }
}

extension MapSearch.Answer: SearchFinding {
    var news: SlotMap { map }
}
