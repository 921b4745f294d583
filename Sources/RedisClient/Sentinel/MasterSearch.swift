import NIOCore

/// One search for the master: which sentinel is asked next, and which of the servers that they name is used. No sockets, clocks or randomness.
///
/// Invariant: a server is used only after it has said itself that it is a master. A sentinel is asked at most once, and so is a server: one that was found to be
/// no master is passed over where another sentinel names it too.
///
/// Sentinels number their configurations: each failover has a greater *epoch*. A sentinel that is cut off from the others goes on naming the master of an older epoch,
/// and that server may go on saying that it is a master. So an answer of an older epoch than the one in use, and another server under the same epoch, are put aside:
/// they are used only if more than half of the sentinels have answered and none of them gave a better one. (An epoch falls when an operator sets the sentinels up anew.)
///
/// Bounds: one question for each sentinel and one for each server that was named; none begins after `ends`.
struct MasterSearch {
    /// A server that is named as the master.
    struct Master: Sendable, Hashable {
        var endpoint: RedisEndpoint
        /// The index of the sentinel that names it.
        var saidBy: Int
        /// The number of the configuration; nil where the sentinel does not tell.
        var epoch: Int64?
    }

    enum Answer: Sendable {
        case named(RedisEndpoint, epoch: Int64?)
        /// The sentinel knows no master of this name.
        case unknown
        case failed(String)
    }

    enum Role: Sendable {
        case master
        /// What it is instead, in Redis' words.
        case other(String)
        case failed(String)
    }

    enum Step: Equatable {
        case ask(sentinel: Int)
        case checkRole(Master)
        case found(Master)
        case failed
    }

    private let count: Int
    private let inUse: Master?
    private let ends: NIODeadline
    private var unasked: ArraySlice<Int>
    /// Answers that are used only if no sentinel gives a better one, the newest last.
    private var aside: [Master] = []
    private var answers = 0
    private var refused: Set<RedisEndpoint> = []
    /// What was wrong with each sentinel, by its index.
    private(set) var troubles: [Int: String] = [:]

    /// - Parameters:
    ///   - order: the indices of all sentinels, each once, in the order in which they are asked.
    ///   - inUse: the master that was found last.
    ///   - ends: after this time no further question begins.
    init(order: [Int], inUse: Master?, ends: NIODeadline) {
        self.count = order.count
        self.unasked = order[...]
        self.inUse = inUse
        self.ends = ends
    }

    /// The order of the next search: a sentinel that has just said something, then those that answered last time or were not asked, shuffled, so that
    /// many servers do not all ask the same one, then those that failed last time.
    static func order(count: Int, first: Int?, failed: Set<Int>, using generator: inout some RandomNumberGenerator) -> [Int] {
        let others = (0..<count).filter { $0 != first }.shuffled(using: &generator)
        return (first.map { [$0] } ?? []) + others.filter { !failed.contains($0) } + others.filter { failed.contains($0) }
    }

    mutating func begin(now: NIODeadline) -> Step { next(now: now) }

    mutating func answered(_ sentinel: Int, _ answer: Answer, now: NIODeadline) -> Step {
        switch answer {
        case .failed(let why): troubles[sentinel] = why
        case .unknown:
            answers += 1
            troubles[sentinel] = "it knows no master of this name"
        case .named(let endpoint, let epoch):
            answers += 1
            let master = Master(endpoint: endpoint, saidBy: sentinel, epoch: epoch)
            if isOlder(master) {
                troubles[sentinel] = "it names \(endpoint), of an older configuration than the one in use"
                let index = aside.firstIndex { ($0.epoch ?? 0) > (epoch ?? 0) } ?? aside.endIndex
                aside.insert(master, at: index)
            } else {
                return check(master, now: now)
            }
        }
        return next(now: now)
    }

    mutating func checked(_ master: Master, _ role: Role, now: NIODeadline) -> Step {
        switch role {
        case .master: return .found(master)
        case .other(let word): troubles[master.saidBy] = "it names \(master.endpoint), which says that it is a \(word)"
        case .failed(let why): troubles[master.saidBy] = "it names \(master.endpoint), which cannot be asked: \(why)"
        }
        refused.insert(master.endpoint)
        return next(now: now)
    }

    private func isOlder(_ master: Master) -> Bool {
        guard let inUse = self.inUse, let known = inUse.epoch, let epoch = master.epoch else { return false }
        return epoch < known || (epoch == known && master.endpoint != inUse.endpoint)
    }

    private mutating func check(_ master: Master, now: NIODeadline) -> Step {
        guard !refused.contains(master.endpoint) else {
            troubles[master.saidBy] = "it names \(master.endpoint) too"
            return next(now: now)
        }
        guard now < ends else { return .failed }
        return .checkRole(master)
    }

    private mutating func next(now: NIODeadline) -> Step {
        guard now < ends else { return .failed }
        if let sentinel = unasked.popFirst() { return .ask(sentinel: sentinel) }
        guard answers * 2 > count, let master = aside.popLast() else { return .failed }
        return check(master, now: now)
    }
}
