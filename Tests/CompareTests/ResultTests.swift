import FlashSaleKit
import Foundation
import NIOPosix
import Testing

@testable import CompareKit

/// Samples with round figures.
enum Made {
    static let machine = Machine(processor: "Test & Sons", cores: 2, memory: 4 << 30, kernel: "Linux 6", loadAverage: 0.2)

    static func sample(
        _ work: Work,
        _ side: Side,
        _ rate: Int,
        clients: Int = 128,
        round: Int = 1,
        cpu: [String: Double] = [:],
        p99: Double = 9
    ) -> Sample {
        Sample(
            work: work,
            side: side,
            clients: clients,
            round: round,
            requests: rate * 4,
            seconds: 4,
            p50: 3,
            p99: p99,
            cpu: cpu.mapValues { $0 * Double(rate * 4) },
            worked: rate * 4
        )
    }

    static func result(_ samples: [Sample], relays: [PeerResult.Relay] = [], rounds: Int = 3, seconds: Double = 4) -> PeerResult {
        PeerResult(
            started: Date(timeIntervalSince1970: 1_800_000_000),
            machine: machine,
            settings: .init(rounds: rounds, secondsEach: seconds, configuration: "default", isPartial: false),
            samples: samples,
            relays: relays
        )
    }

    private static let gobatch: [String: Double] = ["order": 47, "product": 19, "postgres": 57, "redis": 8, "load": 30]

    static let loss = Loss(
        .gobatch,
        .redis,
        LossBooks(initial: 5_000, told: 1_000, unknown: 32, truth: 3_990, sellable: 0),
        neededRestart: true
    )

    /// Three rounds of orders and sold-out decreases.
    static let usual = result([
        sample(.order, .gobatch, 10_000, cpu: gobatch), sample(.order, .gobatch, 9_000, round: 2, cpu: gobatch),
        sample(.order, .gobatch, 11_000, round: 3, cpu: gobatch),
        sample(.order, .stockGate, 9_000, cpu: ["order": 80, "rabbitmq": 20, "idle": 7]),
        sample(.order, .stockGate, 12_000, round: 2, p99: 20), sample(.order, .stockGate, 11_000, round: 3, p99: 11),
        sample(.soldOut, .gobatch, 30_000), sample(.soldOut, .stockGate, 45_000), sample(.durable, .pgbenchFunction, 50_000, clients: 2),
        sample(.durable, .stockGate, 10_000),
    ])
}

@Suite("The result of a comparison")
struct ResultTests {
    private func line(_ result: PeerResult, _ work: Work, _ peer: Side, _ measure: Row.Measure = .rate) -> PeerResult.Line? {
        result.lines.first { $0.work == work && $0.peer == peer && $0.measure == measure }
    }

    @Test func medianAgainstMedian() throws {
        let line = try #require(self.line(Made.usual, .order, .gobatch))
        #expect(line.peerValue == 10_000)
        #expect(line.value == 11_000)
        #expect(line.ratio == 1.1)
        #expect(line.p99 == 11)
        #expect(line.goal == 1)
        #expect(line.isReached == true)
        #expect(line.lacks == Side.gobatch.lacks)
    }

    @Test func aGoalThatIsMissed() throws {
        let soldOut = try #require(line(Made.usual, .soldOut, .gobatch))
        #expect(soldOut.isReached == true)
        let slower = Made.result([Made.sample(.soldOut, .gobatch, 30_000), Made.sample(.soldOut, .stockGate, 41_999)])
        #expect(line(slower, .soldOut, .gobatch)?.isReached == false)
        let exact = Made.result([Made.sample(.soldOut, .gobatch, 30_000), Made.sample(.soldOut, .stockGate, 42_000)])
        #expect(line(exact, .soldOut, .gobatch)?.isReached == true)
        #expect(try #require(line(Made.usual, .durable, .pgbenchFunction)).isReached == nil)
    }

    @Test func lessProcessorTimeIsBetter() throws {
        func ratio(_ ours: Double) throws -> PeerResult.Line {
            let result = Made.result([
                Made.sample(.order, .gobatch, 10_000, cpu: ["order": 50, "postgres": 50]),
                Made.sample(.order, .stockGate, 9_000, cpu: ["order": ours, "load": 500, "other": 500]),
            ])
            return try #require(line(result, .order, .gobatch, .cpu))
        }
        #expect(try ratio(100).isReached == true)
        #expect(try ratio(101).isReached == false)
        // Neither the load generator nor the rest of the machine is a server.
        #expect(try ratio(80).value == 80)
    }

    @Test func whatWasNotMeasuredHasNoRow() {
        #expect(line(Made.usual, .order, .go) == nil)
        #expect(line(Made.usual, .soldOut, .webdis) == nil)
        #expect(Made.result([]).lines.isEmpty)
    }

    @Test func acceptedOrdersAreHeldBesideWholeOnes() throws {
        let result = Made.result([
            Made.sample(.order, .go, 500), Made.sample(.accepted, .stockGate, 9_000), Made.sample(.drained, .stockGate, 4_500),
        ])
        #expect(line(result, .accepted, .go)?.ratio == 18)
        #expect(line(result, .accepted, .go)?.isReached == true)
        #expect(line(result, .drained, .go)?.ratio == 9)
    }

    @Test func processorTimeIsSummedOverTheRounds() throws {
        let result = Made.result([
            Made.sample(.order, .gobatch, 1_000, cpu: ["order": 40]),
            Made.sample(.order, .gobatch, 3_000, round: 2, cpu: ["order": 60, "redis": 8]),
        ])
        let cpu = try #require(result.cpu.first)
        #expect(cpu.byGroup["order"] == 55)
        #expect(cpu.byGroup["redis"] == 6)
        #expect(cpu.servers == 61)
    }

    @Test func theRelaysGoalNeedsTheLoad() {
        func relay(_ rate: Double, _ p99: Double) -> PeerResult.Relay { .init(rate: rate, fullRate: 10_000, p50: 1, p99: p99) }
        #expect(relay(5_000, 19).isReached)
        #expect(!relay(5_000, 20).isReached)
        #expect(!relay(3_999, 5).isReached)
        let result = Made.result([], relays: [relay(5_000, 5), relay(4_000, 50), relay(6_000, 10)])
        #expect(result.relay == relay(5_000, 10))
    }

    @Test func doubts() {
        #expect(Made.usual.doubts.isEmpty)
        #expect(Made.result([], rounds: 2).doubts.count == 1)
        #expect(Made.result([], seconds: 1).doubts.count == 1)
        var busy = Made.sample(.order, .go, 100)
        busy.cpu["other"] = 0.06 * 4 * 1e6 * 2
        #expect(abs(Made.result([busy]).otherWork - 6) < 1e-9)
        #expect(Made.result([busy]).doubts.count == 1)
        // What comes in bursts counts as well, although most samples have none of it.
        #expect(Made.result([Made.sample(.order, .go, 100), busy, Made.sample(.order, .go, 100)]).otherWork > 1.9)
    }

    @Test func jsonIsReadAsItWasWritten() throws {
        var result = Made.result(Made.usual.samples, relays: [.init(rate: 1, fullRate: 2, p50: 3, p99: 4)])
        result.losses = [Made.loss]
        #expect(try PeerResult.read(try result.json()) == result)
    }
}

@Suite("What is measured")
struct PlanTests {
    @Test func everyRowIsMeasuredOnBothSides() {
        for row in Row.all {
            // Until it is decided is measured with what is accepted.
            let work = row.work == .drained ? Work.accepted : row.work
            #expect(Assignment.all.contains { $0.work == work && $0.side == row.side && $0.clients.contains(row.clients) }, "\(row.title)")
            #expect(
                Assignment.all.contains { $0.work == row.peerWork && $0.side == row.peer && $0.clients.contains(row.peerClients) },
                "\(row.title) beside \(row.peer.rawValue)"
            )
            #expect(row.side.isOurs && !row.peer.isOurs)
        }
    }

    @Test func nothingIsMeasuredForNothing() {
        for assignment in Assignment.all { #expect(!assignment.clients.isEmpty, "\(assignment.name)") }
        #expect(Set(Assignment.all).count == Assignment.all.count)
    }

    @Test func onlyNamesWorkByItsBeginning() {
        #expect(Assignment.selected([]) == Assignment.all)
        #expect(Assignment.selected(["durable"]).allSatisfy { $0.work == .durable })
        #expect(Assignment.selected(["order stockgate"]).map(\.side) == [.stockGate, .plain])
        #expect(Assignment.selected(["Order GOBATCH"]).map(\.side) == [.gobatch])
        #expect(Assignment.selected(["nothing"]).isEmpty)
        var plan = PeerComparison.Plan()
        #expect(plan.problem == nil)
        plan.only = ["nothing"]
        #expect(plan.problem?.contains("order gobatch") == true)
        #expect(!plan.measuresGenerator)
        plan.only = ["Gen"]
        #expect(plan.problem == nil)
        #expect(plan.measuresGenerator)
        plan = PeerComparison.Plan()
        plan.rounds = 0
        #expect(plan.problem != nil)
        plan = PeerComparison.Plan()
        plan.duration = .seconds(1_000)
        #expect(plan.problem != nil)
    }

    @Test func theOrderTurnsAroundWithEveryRound() {
        let plan = PeerComparison.Plan()
        let (first, second) = (plan.runs(round: 1, without: []), plan.runs(round: 2, without: []))
        #expect(first.map(\.assignment) == second.reversed().map(\.assignment))
        #expect(first.first?.assignment.side == .gobatch)
        #expect(!plan.runs(round: 1, without: [.tarantool]).contains { $0.assignment.side == .tarantool })
    }

    @Test func aWholeRunIsUnderAQuarterOfAnHour() {
        let plan = PeerComparison.Plan()
        let runs = plan.runs(round: 1, without: []).count
        // Beside its seconds a run has a checkpoint, a product or a reset, and its books: two seconds are what that may take.
        let seconds = Double(runs) * (Double(plan.rounds) * (plan.duration.inSeconds + 2) + plan.warmUp.inSeconds + 2)
        // The kills at the end take two minutes at most.
        #expect(seconds + 120 < 15 * 60, "\(runs) runs a round")
    }

    @Test func aWrongAnswerIsAProblem() async throws {
        var figures = ClosedLoop.Figures()
        #expect(Expectation.every(200).problem(figures) == "no request was answered")
        figures = try await Self.figures(status: 200)
        #expect(Expectation.every(200).problem(figures) == nil)
        #expect(Expectation(statuses: [200, 400]).problem(figures) == nil)
        #expect(Expectation.every(400).problem(figures)?.hasPrefix("expected 400, got ") == true)
    }

    /// Figures of a run against a server that answers everything alike.
    private static func figures(status: Int) async throws -> ClosedLoop.Figures {
        let server = try await AnsweringServer(status: status)
        defer { server.close() }
        return try await ClosedLoop.run(
            ClosedLoop.Request("GET", "/", .none),
            at: try HTTPEndpoint("http://127.0.0.1:\(server.port)"),
            connections: 1,
            for: .milliseconds(200),
            on: MultiThreadedEventLoopGroup.singleton.next()
        )
    }
}

@Suite("The load generator beside wrk") struct GeneratorResultTests {
    private func runs(_ cpu: [Double]) -> [GeneratorResult.Run] { cpu.map { .init(requests: 100_000, seconds: 4, cpu: $0 * 100_000) } }

    @Test("the ratio is that of the medians, and the goal is 1.3")
    func ratio() {
        let good = GeneratorResult(wrk: runs([8, 7, 30]), flashSale: runs([1, 10.4, 11]))
        #expect(good.ratio == 1.3)
        #expect(
            good.line
                == "the load generator against a constant, a key of its own for each request: flash-sale 10.4 us a request at 25000/s, wrk 8.0 us a request at 25000/s: 1.30 x the processor time; goal: at most 1.3 x; reached: yes"
        )
        #expect(GeneratorResult(wrk: runs([8]), flashSale: runs([10.5])).line?.hasSuffix("reached: NO") == true)
        #expect(GeneratorResult(wrk: [], flashSale: runs([1])).line == nil)
    }

    @Test("wrk's own words are read, and others are not")
    func words() throws {
        let text = """
            Running 4s test @ http://127.0.0.1:20001
              Latency     1.05ms
              973376 requests in 8.01s, 310.98MB read
            Requests/sec: 121559.00
            """
        let read = try #require(GeneratorResult.wrk(text))
        #expect(read == (973_376, 8.01))
        for other in ["", "973376 requests in 1.2m, 3MB read", "many requests in 8.01s, 1MB read"] {
            #expect(GeneratorResult.wrk(other) == nil)
        }
    }

    @Test("the pages and the file have it")
    func shown() throws {
        var result = Made.usual
        #expect(ResultTable(result).generatorLines.isEmpty)
        result.generator = GeneratorResult(wrk: runs([8]), flashSale: runs([9]))
        #expect(ResultTable(result).markdown.contains("The load generator against a constant"))
        #expect(try PeerResult.read(try result.json()) == result)
    }
}

@Suite("The cost of a request as a shop grows") struct GrowthResultTests {
    private func point(_ kind: GrowthResult.Kind, _ count: Int, _ cpu: [Double], _ spread: GrowthResult.Spread = .uniform)
        -> GrowthResult.Point
    {
        .init(
            kind: kind,
            count: count,
            spread: spread,
            runs: cpu.map { Made.sample(.durable, .stockGate, 1_000, cpu: ["product": $0 - 2, "redis": 2, "load": 50, "idle": 9]) }
        )
    }

    @Test("the ratio is that of the medians to what one of its kind costs, and each kind has its goal")
    func ratio() {
        let growth = GrowthResult(points: [
            point(.products, 1, [90, 20, 10]), point(.products, 10_000, [25]), point(.products, 10_000, [25.2], .zipf),
            point(.instances, 1, [100]), point(.instances, 4, [115.1]),
        ])
        #expect(growth.points.map { growth.ratio($0) } == [1, 1.25, 1.26, 1, 1.151])
        #expect(
            growth.cells.map { $0.suffix(3) } == [
                ["1.00 x", "-", "-"], ["1.25 x", "<= 1.25 x", "yes"], ["1.26 x", "<= 1.25 x", "NO"], ["1.00 x", "-", "-"],
                ["1.15 x", "<= 1.15 x", "NO"],
            ]
        )
        #expect(growth.cells.map { $0[2] } == ["-", "uniform", "Zipf", "-", "-"])
        #expect(GrowthResult(points: [point(.products, 100, [1])]).cells[0].suffix(3) == ["-", "<= 1.25 x", "-"])
    }

    @Test("it is asked for by name, and stands in text, page and file")
    func shown() throws {
        var plan = PeerComparison.Plan()
        #expect(plan.measuresGrowth)
        plan.only = ["generator"]
        #expect(!plan.measuresGrowth)
        plan.only = ["Grow"]
        #expect(plan.measuresGrowth && plan.problem == nil && !plan.measuresGenerator)
        var result = Made.usual
        #expect(ResultTable(result).growthLines.isEmpty)
        #expect(!ResultTable(result).markdown.contains("more gated products"))
        result.growth = GrowthResult(points: [point(.products, 1, [10]), point(.products, 100_000, [11])])
        #expect(ResultTable(result).growthLines.count == 3)
        #expect(ResultTable(result).markdown.contains("| durable decrease, gated products | 100,000 | uniform |"))
        #expect(try PeerResult.read(try result.json()) == result)
    }
}
