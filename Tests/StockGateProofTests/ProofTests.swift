import StockGate
import StockGateProof
import Testing

@Suite("The protocol, proven")
struct ProofTests {
    @Test("every interleaving of a small world keeps the promises", arguments: World.model + World.own)
    func world(_ world: World) {
        let report = Explorer.explore(world)
        #expect(report.violation == nil, "\(world)\n\(report.violation.map(\.description) ?? "")")
        #expect(!report.isCut)
        #expect(report.states > 20)
    }

    @Test("seeded runs keep the promises, whatever fails", arguments: 0..<8)
    func seeds(_ part: Int) {
        let report = Simulator.run(seeds: UInt64(part * 500 + 1)...UInt64(part * 500 + 500))
        #expect(report.violation == nil, "seed \(report.seed): \(report.violation ?? "")\n\(report.history.joined(separator: "\n"))")
        #expect(report.runs == 500)
        #expect(report.operations > 50_000)
    }

    @Test("the same seed gives the same run")
    func deterministic() {
        let plan = SimulationPlan(seed: 42)
        let (one, two) = (Simulator.run(plan, tracing: true), Simulator.run(plan, tracing: true))
        #expect(one.history == two.history)
        #expect(one.events == two.events)
    }

    @Test("each deliberate fault is noticed", arguments: Mutant.all)
    func mutant(_ mutant: Mutant) {
        #expect(mutant.hunt(seeds: 5000) != nil, "\(mutant.name) goes unnoticed")
    }

    @Test("a failing run is shrunk to a history that still fails")
    func shrinking() throws {
        let report = Simulator.run(seeds: UInt64(1)...500, fault: .stockUnchecked)
        #expect(report.violation != nil)
        #expect(report.history.last?.contains("BROKEN") == true)
    }

    @Test("a violation in a small world comes with its shortest trace")
    func trace() throws {
        let report = Explorer.explore(World("a b", 1), fault: .stockUnchecked)
        let violation = try #require(report.violation)
        #expect(violation.trace.count <= 6)
        #expect(!violation.trace.contains("?"))
    }
}
