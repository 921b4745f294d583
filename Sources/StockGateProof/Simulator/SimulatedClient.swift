import SeededRandom
import StockGate

/// One client with its order server. It makes its orders, repeats requests without an answer, compensates, and remembers what it was told.
final class SimulatedClient {
    /// What the client was told about one order.
    private struct Told {
        var order: SimulationPlan.Order
        /// The order's present id and key; nil before the order is made.
        var identity: SimulatedOrders.Identity?
        var isSold = false
        var isFinallyRefused = false
        /// Whether the order was sold by a row that may belong to an earlier order, in a run where times cannot tell. The protocol leaves this case open.
        var isInDoubt = false
        /// Whether a compensation was sent and is not answered.
        var isCompensating = false
        /// Whether the order database has lost the order.
        var isLost = false
        var isDone = false
    }

    unowned let simulation: Simulation
    let number: Int
    private var random: SplitMix64
    private var told: [Told]
    private var returns: [(request: IncreaseRequest, answer: IncreaseAnswer)] = []

    init(_ simulation: Simulation, number: Int, orders: [SimulationPlan.Order]) {
        self.simulation = simulation
        self.number = number
        // Each client has its own stream of random numbers, so removing another client does not change this one's decisions.
        let first = UInt64(orders.first?.orderID ?? 0)
        random = SplitMix64(seed: simulation.plan.seed ^ (first &* 0x9E37_79B9))
        told = orders.map { Told(order: $0) }
    }

    func start() {
        simulation.unfinished += told.count
        for index in told.indices {
            simulation.after(told[index].order.at) { [self] in
                place(index)
                send(index, attempt: 1)
            }
        }
    }

    private func place(_ index: Int) {
        let identity = simulation.orders.place(self, index, planned: told[index].order)
        told[index].identity = identity
        guard identity.cameRound else { return }
        simulation.log("client \(number): order \(identity.orderID) is made, whose id a lost one had")
        // An order with a lost order's id gets no twin: one of the two would be told about the other's row, and would take that row for the lost order's.
        (told[index].order.isDuplicated, told[index].order.isStolen) = (false, false)
    }

    private func done(_ index: Int) {
        guard !told[index].isDone else { return }
        told[index].isDone = true
        simulation.unfinished -= 1
    }

    /// The order database was restored to before this order was made.
    func lose(_ index: Int) {
        told[index].isLost = true
        done(index)
    }

    /// Whether no compensation of the order is under way.
    func isSettled(_ index: Int) -> Bool { !told[index].isCompensating }

    private func request(_ told: Told, attempt: Int) -> DecreaseRequest? {
        guard let identity = told.identity else { return nil }
        return DecreaseRequest(
            product: Simulation.id(told.order.product),
            key: identity.key,
            orderID: identity.orderID,
            quantity: told.order.quantity,
            isRepeat: attempt > 1,
            since: simulation.since(identity.madeAt)
        )
    }

    private func send(_ index: Int, attempt: Int) {
        let order = told[index].order
        guard !told[index].isLost, let request = request(told[index], attempt: attempt) else { return }
        var isOver = false
        let over = { [self] (delay: Int) in
            guard !isOver, !told[index].isLost else { return }
            isOver = true
            if order.isGivenUp, attempt >= 2 {
                compensate(index, attempt: 1)
            } else {
                simulation.after(delay) { [self] in send(index, attempt: attempt + 1) }
            }
        }
        for _ in 0..<(order.isDuplicated ? 2 : 1) {
            call { process, reply in
                process.decrease(request) { answer in
                    reply { [self] in
                        simulation.log("client \(number): \(request.key) attempt \(attempt) is told \(answer)")
                        guard !told[index].isLost else { return }
                        // A twin that comes first would be told about the other twin's row.
                        if !order.isDuplicated, !isOver, takesAnotherKey(index, answer, request) {
                            isOver = true
                            return send(index, attempt: 1)
                        }
                        hear(index, answer, request)
                        guard !isOver else { return }
                        if case .unavailable = answer { return over(random.number(1000...200_000)) }
                        isOver = true
                        if case .sold = answer, order.isCompensated {
                            compensate(index, attempt: 1)
                        } else {
                            done(index)
                        }
                    }
                }
            }
        }
        if order.isStolen, attempt == 1 {
            var other = request
            other.quantity = Quantity(other.quantity.rawValue + 1)
            call { process, _ in process.decrease(other) { _ in } }
        }
        simulation.after(1_000_000) { over(0) }
    }

    /// An order whose key belongs to another order continues under a key that no order has had, once.
    private func takesAnotherKey(_ index: Int, _ answer: DecreaseAnswer, _ request: DecreaseRequest) -> Bool {
        guard let identity = told[index].identity, identity.cameRound, identity.key == request.key, !request.key.contains(".") else {
            return false
        }
        guard case .takeAnotherKey = OrderModel.verdict(on: answer, isFirst: !request.isRepeat, fault: simulation.plan.fault) else {
            return false
        }
        let key = simulation.orders.newKey(identity)
        simulation.log("client \(number): order \(identity.orderID) takes the key \(key)")
        told[index].identity?.key = key
        return true
    }

    private func hear(_ index: Int, _ answer: DecreaseAnswer, _ request: DecreaseRequest) {
        guard told[index].identity?.key == request.key else { return }
        switch answer {
        case .sold(_, let replayed):
            told[index].isSold = true
            guard request.since == nil, let identity = told[index].identity, identity.cameRound else { return }
            if replayed && request.isRepeat { told[index].isInDoubt = true }
        case .insufficient, .notOnSale: if request.isRepeat { told[index].isFinallyRefused = true }
        case .keyClosed: told[index].isFinallyRefused = true
        case .keyReused, .productMissing, .unavailable: break
        }
    }

    /// Compensates an order. Some clients name a wrong quantity first. When they are told that the key belongs to something else, they name the right one.
    private func compensate(_ index: Int, attempt: Int, corrected: Bool = false) {
        let order = told[index].order
        guard !told[index].isLost, let identity = told[index].identity else { return }
        told[index].isCompensating = true
        let request = IncreaseRequest(
            product: Simulation.id(order.product),
            key: "INC-" + identity.key.dropFirst(4),
            orderID: identity.orderID,
            quantity: corrected ? order.quantity : order.namedQuantity
        )
        var isOver = false
        let over = { [self] in
            guard !isOver, !told[index].isLost else { return }
            isOver = true
            simulation.after(random.number(1000...200_000)) { [self] in compensate(index, attempt: attempt + 1, corrected: corrected) }
        }
        for _ in 0..<(order.isDuplicated ? 2 : 1) {
            call { process, reply in
                process.increase(request) { answer in
                    reply { [self] in
                        simulation.log("client \(number): \(request.key) is told \(answer)")
                        if case .unavailable = answer { return over() }
                        returns.append((request, answer))
                        guard !isOver, !told[index].isLost else { return }
                        isOver = true
                        if answer == .keyReused, request.quantity != order.quantity {
                            return compensate(index, attempt: 1, corrected: true)
                        }
                        told[index].isCompensating = false
                        done(index)
                    }
                }
            }
        }
        simulation.after(1_000_000) { over() }
    }

    /// Sends a request to a server that the client chooses, and brings back its answer. Either may be lost.
    private func call(_ body: @escaping (ServerProcess, _ reply: @escaping (@escaping () -> Void) -> Void) -> Void) {
        simulation.operations += 1
        let server = simulation.servers[random.number(0...simulation.servers.count - 1)]
        guard !simulation.isLost() else { return }
        simulation.after(simulation.delay()) { [self] in
            guard let process = server.process else { return }
            process.deliver {
                body(process) { [self] answered in
                    guard !simulation.isLost() else { return }
                    simulation.after(simulation.delay(), answered)
                }
            }
        }
    }

    /// The keys under which the client's orders were sold. Each key belongs to one order.
    var soldKeys: [String] { told.filter { $0.isSold && !$0.isInDoubt }.compactMap { $0.identity?.key } }

    /// The untrue statement among those that the client was told.
    func violation() -> String? {
        for told in told {
            guard let key = told.identity?.key else { continue }
            guard !simulation.lost.contains(key), !simulation.lost.contains("INC-" + key.dropFirst(4)) else { continue }
            let isCommitted = simulation.ledger.row(key)?.direction == .out
            let isReturned = simulation.ledger.row("INC-" + key.dropFirst(4))?.direction == .in
            if told.isSold, !isCommitted { return "\(key) told yes, not committed" }
            if told.isFinallyRefused, isCommitted, !isReturned { return "\(key) told no, committed" }
        }
        for (request, answer) in returns
        where !simulation.lost.contains(request.key) && !simulation.lost.contains(request.decreaseKey) {
            if let violation = simulation.ledger.violation(of: answer, to: request) { return violation }
        }
        return nil
    }
}
