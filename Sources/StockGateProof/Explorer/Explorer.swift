import StockGate

// Explores every interleaving of a small world, breadth first.
//
// Invariant: each state is visited once. Two states are equal if their stores, actors and budgets are. Each part of a state is stored once and has a number, so
//   a visited state takes only a few words of memory.
// Bounds: `limit` states. Stop: no new state, a violation, or the limit.

/// Explores small worlds.
public enum Explorer {
    /// What an exploration found.
    public struct Report: Sendable {
        /// The world that was explored.
        public var world: World
        /// States visited.
        public var states: Int
        /// Steps taken between the states.
        public var steps: Int
        /// Whether the exploration stopped at the limit.
        public var isCut: Bool
        /// The broken promise with the shortest way to it; nil: every promise holds.
        public var violation: Violation?
    }

    /// A broken promise.
    public struct Violation: Sendable, CustomStringConvertible {
        /// The promise that is broken.
        public var promise: String
        /// The shortest trace to it, one step a line, and the state at its end.
        public var trace: [String]

        /// Promise and trace, for a test's message.
        public var description: String { ([promise] + trace.map { "  " + $0 }).joined(separator: "\n") }
    }

    /// Visits every state of a world until one breaks a promise.
    public static func explore(_ world: World, fault: Fault? = nil, limit: Int = 12_000_000) -> Report {
        var run = ExplorerRun(ExplorerRules(world, fault: fault))
        return run.explore(limit: limit)
    }
}

/// A visited state, as the numbers of its parts.
private struct Packed: Hashable {
    var one: UInt64
    var two: UInt64
    var three: UInt64
    var four: UInt64

    func hash(into hasher: inout Hasher) {
        var mixed = one &* 0x9E37_79B9_7F4A_7C15
        mixed = (mixed ^ (mixed >> 29) ^ two) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 32) ^ three) &* 0x94D0_49BB_1331_11EB
        mixed = (mixed ^ (mixed >> 31) ^ four) &* 0xD6E8_FEB8_6659_FD93
        hasher.combine(mixed ^ (mixed >> 32))
    }
}

private struct Interner<Value: Hashable> {
    private var numbers: [Value: UInt32] = [:]
    private(set) var values: [Value] = []

    mutating func number(_ value: Value) -> UInt32 {
        if let known = numbers[value] { return known }
        let number = UInt32(values.count)
        numbers[value] = number
        values.append(value)
        return number
    }
}

private struct ExplorerRun {
    let rules: ExplorerRules
    private var ledgers = Interner<LedgerModel>()
    private var gates = Interner<GateModel>()
    private var actors = Interner<ExplorerActor>()
    private var rests = Interner<ExplorerState.Rest>()
    private var ledgersChecked = 0
    private var visited: [Packed: UInt32] = [:]
    private var order: [Packed] = []
    private var parents: [UInt32] = []

    init(_ rules: ExplorerRules) { self.rules = rules }

    mutating func explore(limit: Int) -> Explorer.Report {
        var report = Explorer.Report(world: rules.world, states: 0, steps: 0, isCut: false, violation: nil)
        let first = rules.beginning()
        visit(pack(first), from: 0)
        var next = 0
        while next < order.count, order.count < limit {
            let packed = order[next]
            let state = unpack(packed)
            if let broken = brokenLedger(packed) ?? rules.violation(state) {
                report.violation = Explorer.Violation(promise: broken, trace: trace(to: next) + [end(state)])
                break
            }
            var found: [Packed] = []
            rules.successors(of: state) { after, _ in found.append(pack(after, from: packed, state)) }
            report.steps += found.count
            for packed in found { visit(packed, from: UInt32(next)) }
            next += 1
        }
        report.states = order.count
        report.isCut = report.violation == nil && next < order.count
        return report
    }

    private mutating func visit(_ packed: Packed, from parent: UInt32) {
        guard visited.updateValueIfAbsent(UInt32(order.count), for: packed) else { return }
        order.append(packed)
        parents.append(parent)
    }

    /// Checks the ledger of a state. A ledger is checked once, however many states contain it.
    private mutating func brokenLedger(_ packed: Packed) -> String? {
        let number = Int(packed.one >> 32)
        guard number >= ledgersChecked else { return nil }
        for unchecked in ledgersChecked...number {
            if unchecked == number {
                if let broken = ledgers.values[unchecked].violation() { return broken }
            } else if ledgers.values[unchecked].violation() != nil {
                return nil  // found when its own state's turn comes
            }
            ledgersChecked = unchecked + 1
        }
        return nil
    }

    // MARK: Numbers for parts

    private mutating func pack(_ state: ExplorerState) -> Packed {
        var numbers: [UInt32] = [ledgers.number(state.ledger), gates.number(state.gate), rests.number(state.rest)]
        numbers += state.actors.map { actors.number($0) }
        return Self.packed(numbers)
    }

    private mutating func pack(_ state: ExplorerState, from packed: Packed, _ before: ExplorerState) -> Packed {
        var after = packed
        if state.ledger != before.ledger { after.one = UInt64(ledgers.number(state.ledger)) << 32 | after.one & 0xFFFF_FFFF }
        if state.gate != before.gate { after.one = UInt64(gates.number(state.gate)) | after.one & 0xFFFF_FFFF_0000_0000 }
        if state.rest != before.rest { after.two = UInt64(rests.number(state.rest)) << 32 | after.two & 0xFFFF_FFFF }
        for index in state.actors.indices where state.actors[index] != before.actors[index] {
            Self.set(&after, index, actors.number(state.actors[index]))
        }
        return after
    }

    /// Packs actor numbers: 32 bits go into the second word, then each word takes three numbers of 21 bits.
    private static func packed(_ numbers: [UInt32]) -> Packed {
        var packed = Packed(
            one: UInt64(numbers[0]) << 32 | UInt64(numbers[1]),
            two: UInt64(numbers[2]) << 32,
            three: 0,
            four: 0
        )
        for (index, number) in numbers.dropFirst(3).enumerated() { set(&packed, index, number) }
        return packed
    }

    private static func set(_ packed: inout Packed, _ index: Int, _ number: UInt32) {
        precondition(index < 7 && number < 1 << 21, "a world with too many actors")
        let mask: UInt64 = (1 << 21) - 1
        switch index {
        case 0: packed.two = packed.two & ~mask | UInt64(number)
        case 1...3:
            let shift = UInt64(index - 1) * 21
            packed.three = packed.three & ~(mask << shift) | UInt64(number) << shift
        default:
            let shift = UInt64(index - 4) * 21
            packed.four = packed.four & ~(mask << shift) | UInt64(number) << shift
        }
    }

    private func unpack(_ packed: Packed) -> ExplorerState {
        let mask: UInt64 = (1 << 21) - 1
        let parts = rules.world.actors.indices.map { index -> ExplorerActor in
            let number =
                switch index {
                case 0: packed.two & mask
                case 1...3: packed.three >> (UInt64(index - 1) * 21) & mask
                default: packed.four >> (UInt64(index - 4) * 21) & mask
                }
            return actors.values[Int(number)]
        }
        return ExplorerState(
            ledger: ledgers.values[Int(packed.one >> 32)],
            gate: gates.values[Int(packed.one & 0xFFFF_FFFF)],
            actors: parts,
            rest: rests.values[Int(packed.two >> 32)]
        )
    }

    // MARK: Traces

    private mutating func trace(to index: Int) -> [String] {
        var lines: [String] = []
        var index = index
        while index > 0 {
            let parent = Int(parents[index])
            let state = unpack(order[parent])
            var line = "?"
            rules.successors(of: state) { after, move in
                guard line == "?", pack(after, from: order[parent], state) == order[index] else { return }
                let who = move.actor < 0 ? "" : "\(move.actor):\(rules.world.actors[move.actor]): "
                line = who + "\(move.what)" + (move.outcome.map { " \($0)" } ?? "")
            }
            lines.append(line)
            index = parent
        }
        return lines.reversed()
    }

    private func end(_ state: ExplorerState) -> String {
        let row = state.ledger.product(ExplorerRules.product)
        let rows = state.ledger.rows.map { "\($0.key) \($0.direction.rawValue) \($0.fence)/\($0.token)" }.joined(separator: ", ")
        let pending = state.gate.pending.map { "\($0.key) \($0.token)" }.joined(separator: ", ")
        return
            "= stock \(row?.stock ?? -1) fence \(row?.fence ?? -1) [\(rows)]; Redis counter \(state.gate.counter.map(String.init) ?? "none")"
            + " fence \(state.gate.fence) pending [\(pending)]"
    }
}

extension Dictionary {
    /// Stores a value unless the key has one. Returns whether it was stored.
    fileprivate mutating func updateValueIfAbsent(_ value: Value, for key: Key) -> Bool {
        let before = count
        _ = { (_: inout Value) in }(&self[key, default: value])
        return count > before
    }
}
