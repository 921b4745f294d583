/// The order database of a run: it gives out ids, and gives some out again after a restore.
///
/// A restore brings the database back to a state that is some orders old. It loses those orders, and its sequence gives out their ids again, while the ledger
/// and Redis keep their data. Nobody hears any more what is said about a lost order, but requests for it may still run.
final class SimulatedOrders {
    /// An order's id and key, and the time when it was made, in microseconds of virtual time.
    struct Identity {
        var orderID: Int64
        var key: String
        var madeAt: Int
        /// Whether a lost order had the id before.
        var cameRound: Bool
    }

    private struct Entry {
        var orderID: Int64
        var client: SimulatedClient
        var index: Int
    }

    private unowned let simulation: Simulation
    private var entries: [Entry] = []
    private var free: [Int64] = []
    /// Ids that the sequence hands out next although orders have them already.
    private var behind: [Int64] = []
    private var renewals = 0

    init(_ simulation: Simulation) { self.simulation = simulation }

    /// Writes an order down.
    func place(_ client: SimulatedClient, _ index: Int, planned: SimulationPlan.Order) -> Identity {
        var isTaken = false
        if !behind.isEmpty {
            if simulation.plan.fault == .takenIDDriven {
                isTaken = true
                free.insert(behind.removeFirst(), at: 0)
            } else {
                simulation.log("the sequence of ids is raised")
                behind = []
            }
        }
        let cameRound = isTaken || !free.isEmpty
        let orderID = cameRound ? free.removeFirst() : planned.orderID
        entries.append(Entry(orderID: orderID, client: client, index: index))
        return Identity(orderID: orderID, key: cameRound ? "DEC-\(orderID)" : planned.key, madeAt: simulation.now, cameRound: cameRound)
    }

    /// A key that no order has had.
    func newKey(_ identity: Identity) -> String {
        renewals += 1
        return "DEC-\(identity.orderID).\(renewals)"
    }

    /// Sets the sequence back behind the last orders.
    func fallBehind(_ count: Int) { behind = entries.suffix(count).map(\.orderID) }

    /// Loses the last orders, so that their ids are given to the next ones.
    func restore(behind count: Int) {
        let lost = entries.suffix(count)
        entries.removeLast(lost.count)
        behind.removeAll { id in lost.contains { $0.orderID == id } }
        for entry in lost {
            entry.client.lose(entry.index)
            // An id is not given out again while a compensation under it is under way, which would reach the next order; in reality a restore takes longer than a
            // call. Ids that a stranger refers to are not given out again either.
            let isStrangers = simulation.plan.strangers.contains { $0.key == "INC-\(entry.orderID)" }
            if entry.client.isSettled(entry.index), !isStrangers { free.append(entry.orderID) }
        }
    }
}
