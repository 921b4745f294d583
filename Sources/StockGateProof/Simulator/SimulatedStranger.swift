import SeededRandom
import StockGate

/// A caller that sends one increase that belongs to no decrease, until it is answered, and remembers the answer.
final class SimulatedStranger {
    unowned let simulation: Simulation
    private let wrong: SimulationPlan.WrongIncrease
    private let request: IncreaseRequest
    private var random: SplitMix64
    private var answers: [IncreaseAnswer] = []

    init(_ simulation: Simulation, _ wrong: SimulationPlan.WrongIncrease) {
        self.simulation = simulation
        self.wrong = wrong
        request = IncreaseRequest(
            product: Simulation.id(wrong.product),
            key: wrong.key,
            orderID: wrong.orderID,
            quantity: wrong.quantity
        )
        random = SplitMix64(seed: simulation.plan.seed ^ (UInt64(wrong.orderID) &* 0xBF58_476D_1CE4_E5B9) ^ UInt64(wrong.at))
    }

    func start() {
        simulation.unfinished += 1
        simulation.after(wrong.at) { [self] in send() }
    }

    private func send() {
        var isOver = false
        let again = { [self] in
            guard !isOver else { return }
            isOver = true
            simulation.after(random.number(1000...200_000)) { [self] in send() }
        }
        for _ in 0..<(wrong.isDuplicated ? 2 : 1) {
            simulation.operations += 1
            let server = simulation.servers[random.number(0...simulation.servers.count - 1)]
            guard !simulation.isLost() else { continue }
            simulation.after(simulation.delay()) { [self] in
                guard let process = server.process else { return }
                process.deliver { [self] in
                    process.increase(request) { [self] answer in
                        guard !simulation.isLost() else { return }
                        simulation.after(simulation.delay()) { [self] in
                            simulation.log("stranger: \(request.key) of order \(request.orderID) is told \(answer)")
                            if case .unavailable = answer { return again() }
                            answers.append(answer)
                            guard !isOver else { return }
                            isOver = true
                            simulation.unfinished -= 1
                        }
                    }
                }
            }
        }
        simulation.after(1_000_000) { again() }
    }

    /// The untrue statement in the answer, if there is one.
    func violation() -> String? {
        if simulation.lost.contains(request.key) || simulation.lost.contains(request.decreaseKey) { return nil }
        return answers.lazy.compactMap { [simulation, request] in simulation.ledger.violation(of: $0, to: request) }.first
    }
}
