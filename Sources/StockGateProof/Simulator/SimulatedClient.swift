import StockGate

/// One client: sends its orders, repeats what is not answered, compensates, and remembers what it was told.
final class SimulatedClient {
    /// What was told about one order.
    private struct Told {
        var order: SimulationPlan.Order
        var isSold = false
        var isFinallyRefused = false
    }

    unowned let simulation: Simulation
    let number: Int
    private var random: SplitMix64
    private var told: [Told]
    private var returns: [(request: IncreaseRequest, answer: IncreaseAnswer)] = []

    init(_ simulation: Simulation, number: Int, orders: [SimulationPlan.Order]) {
        self.simulation = simulation
        self.number = number
        // A stream of its own: taking another client away changes nothing of what this one decides.
        let first = UInt64(orders.first?.orderID ?? 0)
        random = SplitMix64(seed: simulation.plan.seed ^ (first &* 0x9E37_79B9))
        told = orders.map { Told(order: $0) }
    }

    func start() {
        simulation.unfinished += told.count
        for index in told.indices {
            simulation.after(told[index].order.at) { [self] in send(index, attempt: 1) }
        }
    }

    private func request(_ order: SimulationPlan.Order, attempt: Int) -> DecreaseRequest {
        DecreaseRequest(
            product: Simulation.id(order.product),
            key: order.key,
            orderID: order.orderID,
            quantity: order.quantity,
            isRepeat: attempt > 1
        )
    }

    private func send(_ index: Int, attempt: Int) {
        let order = told[index].order
        var isOver = false
        let over = { [self] (delay: Int) in
            guard !isOver else { return }
            isOver = true
            if order.isGivenUp, attempt >= 2 {
                compensate(index, attempt: 1)
            } else {
                simulation.after(delay) { [self] in send(index, attempt: attempt + 1) }
            }
        }
        let request = request(order, attempt: attempt)
        for _ in 0..<(order.isDuplicated ? 2 : 1) {
            call { process, reply in
                process.decrease(request) { answer in
                    reply { [self] in
                        simulation.log("client \(number): \(request.key) attempt \(attempt) is told \(answer)")
                        hear(index, answer, isRepeat: request.isRepeat)
                        guard !isOver else { return }
                        if case .unavailable = answer { return over(random.number(1000...200_000)) }
                        isOver = true
                        if case .sold = answer, order.isCompensated {
                            compensate(index, attempt: 1)
                        } else {
                            simulation.unfinished -= 1
                        }
                    }
                }
            }
        }
        if order.isStolen, attempt == 1 {
            var other = request
            other.quantity += 1
            call { process, _ in process.decrease(other) { _ in } }
        }
        simulation.after(1_000_000) { over(0) }
    }

    private func hear(_ index: Int, _ answer: DecreaseAnswer, isRepeat: Bool) {
        switch answer {
        case .sold: told[index].isSold = true
        case .insufficient, .notOnSale: if isRepeat { told[index].isFinallyRefused = true }
        case .keyClosed: told[index].isFinallyRefused = true
        case .keyReused, .productMissing, .unavailable: break
        }
    }

    /// Some clients name another quantity than they took. Told that the key is of something else, they name the right one.
    private func compensate(_ index: Int, attempt: Int, corrected: Bool = false) {
        let order = told[index].order
        let request = IncreaseRequest(
            product: Simulation.id(order.product),
            key: "INC-" + order.key.dropFirst(4),
            orderID: order.orderID,
            quantity: corrected ? order.quantity : order.namedQuantity
        )
        var isOver = false
        let over = { [self] in
            guard !isOver else { return }
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
                        guard !isOver else { return }
                        isOver = true
                        if answer == .keyReused, request.quantity != order.quantity {
                            return compensate(index, attempt: 1, corrected: true)
                        }
                        simulation.unfinished -= 1
                    }
                }
            }
        }
        simulation.after(1_000_000) { over() }
    }

    /// Brings a request to a server of the client's choice, and its answer back; either may be lost.
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

    /// What was told and is not so.
    func violation() -> String? {
        for told in told {
            let key = told.order.key
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
