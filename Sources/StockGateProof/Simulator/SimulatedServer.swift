/// One server: a sequence of processes that live and die.
final class SimulatedServer {
    unowned let simulation: Simulation
    let number: Int
    private(set) var process: ServerProcess?
    private var pausedUntil = 0

    init(_ simulation: Simulation, number: Int) {
        self.simulation = simulation
        self.number = number
    }

    func start() {
        guard process == nil else { return }
        let process = ServerProcess(self)
        self.process = process
        process.start()
    }

    func kill(down: Int) {
        guard let process else { return }
        process.die()
        self.process = nil
        simulation.after(down) { [self] in start() }
    }

    func pause(_ length: Int) {
        guard let process else { return }
        process.pause()
        pausedUntil = simulation.now + length
        simulation.after(length) { [self] in
            if process === self.process, simulation.now >= pausedUntil { process.resume() }
        }
    }

    func heal() {
        start()
    }

    func end() {
        process?.die()
    }
}
