import ArgumentParser
import StockGate
import StockGateProof

@main
struct Simulate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Proves the reservation protocol: seeded simulations, completely explored small worlds, and deliberate faults."
    )

    @Option(help: "How many seeds to run.")
    var seeds = 10_000

    @Option(help: "The first seed.")
    var from: UInt64 = 1

    @Option(help: "Stop after this many seconds, even if seeds are left.")
    var seconds = 3600

    @Option(help: "Switch this fault on (a name of the table that --mutants prints).")
    var fault: String?

    @Flag(help: "Explore the small worlds instead.")
    var worlds = false

    @Flag(help: "Explore the deep worlds too.")
    var deep = false

    @Flag(help: "Switch every fault on, one at a time, and print what catches it.")
    var mutants = false

    mutating func run() throws {
        if mutants { return try runMutants() }
        let mutant = fault.flatMap { name in Mutant.all.first { $0.name == name } }
        if let fault, mutant == nil { throw ValidationError("there is no fault named \(fault)") }
        if worlds || deep { try runWorlds(mutant?.fault) } else { try runSeeds(mutant?.fault) }
    }

    private func runSeeds(_ fault: Fault?) throws {
        let clock = ContinuousClock()
        let start = clock.now
        let end = start + .seconds(seconds)
        let report = Simulator.run(seeds: from..<from + UInt64(seeds), fault: fault) { clock.now > end }
        let took = max((clock.now - start) / .seconds(1), 1e-9)
        print(
            """
            \(report.runs) runs from seed \(from) in \(figure(took)) s: \(figure(Double(report.time) / 3.6e9)) simulated hours, \
            \(report.operations) operations, \(Int(Double(report.operations) / took)) operations/s, \(Int(Double(report.events) / took)) events/s
            """
        )
        guard let violation = report.violation else { return }
        print("BROKEN by seed \(report.seed): \(violation)\nThe shortest history found:")
        for line in report.history { print("  \(line)") }
        throw ExitCode.failure
    }

    private func runWorlds(_ fault: Fault?) throws {
        let clock = ContinuousClock()
        var total = 0
        for world in World.model + World.own + (deep ? World.deep : []) {
            let start = clock.now
            let report = Explorer.explore(world, fault: fault)
            total += report.states
            print("\(report.states) states, \(report.steps) steps, \(figure((clock.now - start) / .seconds(1))) s: \(world)")
            if report.isCut { print("stopped at the limit") }
            if let violation = report.violation {
                print("VIOLATION \(violation)")
                throw ExitCode.failure
            }
        }
        print("\(total) states, no violation")
    }

    private func runMutants() throws {
        var missed = 0
        print("| fault | caught by | states or runs | promise broken |\n|---|---|---|---|")
        for mutant in Mutant.all {
            guard let found = mutant.hunt(seeds: seeds) else {
                missed += 1
                print("| \(mutant.name) | NOTHING | | |")
                continue
            }
            switch found.finder {
            case .world(let world, let states): print("| \(mutant.name) | world `\(world)` | \(states) states | \(found.promise) |")
            case .seed(let seed, let runs): print("| \(mutant.name) | seed \(seed) | \(runs) runs | \(found.promise) |")
            }
        }
        print("\(Mutant.all.count - missed) of \(Mutant.all.count) caught")
        if missed > 0 { throw ExitCode.failure }
    }

    private func figure(_ value: Double) -> String { String(Double(Int(value * 1000)) / 1000) }
}
