import Synchronization

/// How many buyers wait for an answer: what the groups that write their orders can expect.
final class WaitingBuyers: Sendable {
    private let number = Atomic<Int>(0)

    var count: Int { number.load(ordering: .relaxed) }

    func come() { number.wrappingAdd(1, ordering: .relaxed) }
    func leave() { number.wrappingSubtract(1, ordering: .relaxed) }
}
