import StockGate

/// The order database of a run: who has which id, and which ids come round again after a restore.
///
/// Restored to a state that is some orders old, it has lost those, and its sequence hands their ids out again while the ledger and Redis have what they
/// had. Nobody hears what is said of a lost order any more; what was sent for it may still run.
final class SimulatedOrders {
    /// An order's id and key, and when it was made, microseconds of virtual time.
    struct Identity {
        var orderID: Int64
        var key: String
        var madeAt: Int
        /// Whether a lost order had the id.
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
    private var renewals = 0

    init(_ simulation: Simulation) { self.simulation = simulation }

    /// Writes an order down.
    func place(_ client: SimulatedClient, _ index: Int, planned: SimulationPlan.Order) -> Identity {
        let cameRound = !free.isEmpty
        let orderID = cameRound ? free.removeFirst() : planned.orderID
        entries.append(Entry(orderID: orderID, client: client, index: index))
        return Identity(orderID: orderID, key: cameRound ? "DEC-\(orderID)" : planned.key, madeAt: simulation.now, cameRound: cameRound)
    }

    /// A key that no order has had.
    func newKey(_ identity: Identity) -> String {
        renewals += 1
        return "DEC-\(identity.orderID).\(renewals)"
    }

    /// The last orders are lost, and their ids are given to the next ones.
    func restore(behind count: Int) {
        let lost = entries.suffix(count)
        entries.removeLast(lost.count)
        for entry in lost {
            entry.client.lose(entry.index)
            // A compensation that is on its way would be the next order's: a restore takes longer than a call. Nor is it a stranger's business.
            let isStrangers = simulation.plan.strangers.contains { $0.key == "INC-\(entry.orderID)" }
            if entry.client.isSettled(entry.index), !isStrangers { free.append(entry.orderID) }
        }
    }
}
