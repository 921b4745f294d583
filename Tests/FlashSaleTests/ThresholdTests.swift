import Foundation
import Testing

@testable import FlashSaleKit

/// A sale that was never held, with figures of the test's choice.
func madeUpResult(_ change: (inout LoadFigures) -> Void = { _ in }) -> SaleResult {
    var load = LoadFigures()
    for index in 1...1000 {
        load.phases[0].byOutcome[OrderOutcome.confirmed.rawValue].record(microseconds: Int64(index * 100))
    }
    for _ in 1...3000 { load.phases[2].byOutcome[OrderOutcome.soldOut.rawValue].record(microseconds: 1_000) }
    load.phases[0].confirmed = 1000
    load.phases[2].soldOut = 3000
    load.phases[2].errors = 4
    load.sent = 4004
    load.due = 4400
    load.shed = 396
    change(&load)
    return SaleResult(
        product: 1,
        load: load,
        duration: .seconds(2),
        transitions: [],
        story: [],
        points: [],
        faults: [],
        hasSettled: true,
        audit: Audit(unauditedUnits: 1000, confirmedUnits: 1000, load: load),
        reachedLimit: false
    )
}

@Suite("Thresholds")
struct ThresholdTests {
    @Test(arguments: [
        ("p50.confirmed<51ms", true, Requirement.Kind.latency), ("p50.confirmed<50ms", false, .latency), ("p99<100ms", true, .latency),
        ("p99.9.confirmed>=0.05s", true, .latency), ("p50.soldout<=1001us", true, .latency), ("max<90ms", false, .latency),
        ("mean<20ms", true, .latency), ("p50.refused<1s", false, .latency), ("errors<0.1%", true, .outcomes),
        ("errors<0.09%", false, .outcomes),
        ("errors<=4", true, .outcomes), ("errors=0", false, .outcomes), ("shed<9.1%", true, .outcomes), ("shed<=395", false, .outcomes),
        ("confirmed==1000", true, .outcomes), ("soldout>70%", true, .outcomes), ("rate>=91%", true, .rate), ("rate>=95%", false, .rate),
        ("throughput>2000", true, .rate), ("throughput>2003", false, .rate), ("oversold=0", true, .books), ("leaked=0", false, .books),
        ("drift=0", false, .books), ("generator=ok", true, .generator),
    ])
    func areJudged(text: String, isMet: Bool, kind: Requirement.Kind) throws {
        let requirement = try #require(try Requirement.list(text).first)
        let verdict = requirement.judge(madeUpResult())
        #expect(verdict.isMet == isMet, "\(verdict.line)")
        #expect(requirement.kind == kind)
    }

    @Test(arguments: [
        "", "p99", "p99<", "p99<50", "p100<1s", "p0<1s", "p<1s", "errors<x", "errors=<1", "errors<-1", "rate>=8000", "oversold<1%",
        "throughput>1%", "speed>1",
        "generator=bad", "generator>ok", "p99<50ms,,errors=0", "p99.late<1s",
    ])
    func whatCannotBeRequiredIsSaid(text: String) {
        #expect(throws: PlanError.self) { try Requirement.list(text) }
    }

    @Test func theFirstMissedDecides() throws {
        let report = SaleReport(madeUpResult(), requirements: try Requirement.list("p99<1s, rate>=95%, max<1ms"))
        #expect(report.firstMissed == .rate)
        #expect(report.table.contains("require rate>=95%: MISSED, 91.000 %"), "\(report.table)")
        #expect(report.table.contains { $0.hasPrefix("rate: 4,004 of the 4,400 orders meant by then were sent (91.0 %)") })
        #expect(SaleReport(madeUpResult(), requirements: try Requirement.list("p99<1s")).firstMissed == nil)
    }

    @Test func aGeneratorThatIsTheBottleneckIsSaid() throws {
        func doubts(_ change: (inout GeneratorHealth) -> Void) throws -> (Int, Bool) {
            let result = madeUpResult { change(&$0.health) }
            let report = SaleReport(result, requirements: try Requirement.list("generator=ok"))
            return (report.table.count { $0.hasPrefix("caution: ") }, report.firstMissed == .generator)
        }
        #expect(try doubts { _ in } == (0, false))
        #expect(try doubts { $0.busiest = 0.95 } == (1, true))
        #expect(try doubts { health in for _ in 0..<100 { health.sendLag.record(microseconds: 25_000) } } == (1, true))
    }

    @Test func percentilesAreChosen() throws {
        #expect(try SaleReport.percentiles("99.99,50") == [50, 99.99])
        for text in ["", "0", "100", "x", "50,,99"] { #expect(throws: PlanError.self) { try SaleReport.percentiles(text) } }
        let table = SaleReport(madeUpResult(), percentiles: [50, 99.99]).table
        #expect(table.contains { $0.contains("p50") && $0.contains("p99.99") && $0.contains("max") })
        #expect(table.contains { $0.hasPrefix("sold out") && $0.contains("1.0") }, "outcomes are told apart")
        let numbers = SaleReport(madeUpResult()).table.prefix { !$0.contains("orders sent") }
        #expect(numbers.allSatisfy { $0.count <= 80 }, "\(numbers)")
    }
}

@Suite("Reports beside each other")
struct ComparisonTests {
    private func report(_ throughputs: [Double], p99: Double = 10, errors: Int = 0) throws -> Data {
        let runs = throughputs.map { throughput in
            ReportValue.object([
                "throughput": .double(throughput), "errors": .int(errors), "pass": .bool(true),
                "latencyMs": .object(["p50": .double(1), "p99": .double(p99)]),
            ])
        }
        return try JSONEncoder().encode(ReportValue.object(["runs": .array(runs)]))
    }

    private func verdict(_ first: Data, _ second: Data, noise: Double = 0.05) throws -> Comparison.Change {
        try Comparison(first, second, noise: noise).verdict
    }

    @Test func aChangeNeedsIntervalsApartAndMoreThanTheNoise() throws {
        let base = try report([100, 101, 102, 103, 104])
        #expect(try verdict(base, report([150, 151, 152, 153, 154])) == .better)
        #expect(try verdict(base, report([50, 51, 52, 53, 54])) == .worse)
        #expect(try verdict(base, report([105, 106, 106, 107, 108])) == .same, "apart, but within 5 %")
        #expect(try verdict(base, report([90, 112, 120, 125, 130])) == .same, "beyond the noise, but not apart")
        #expect(try verdict(base, report([105, 106, 106, 107, 108]), noise: 0.01) == .better)
        #expect(try verdict(base, report([100, 101, 102, 103, 104], p99: 20)) == .worse, "less is better for a latency")
        #expect(try verdict(base, report([150, 151, 152, 153, 154], p99: 20)) == .worse, "one thing worse is worse")
        #expect(try verdict(base, report([100, 101, 102, 103, 104], errors: 1)) == .worse, "an error where none was")
    }

    @Test func oneRunIsComparedByTheNoiseAloneAndThatIsSaid() throws {
        let comparison = try Comparison(report([100]), report([90]), noise: 0.05)
        #expect(comparison.verdict == .worse && comparison.cautions.count { $0.contains("fewer than three") } == 1)
        #expect(comparison.lines.last == "COMPARE WORSE beyond a noise of 5 %")
    }

    /// Ranks for the median with 95 %, from the binomial distribution.
    @Test(arguments: [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3), (20, 5), (25, 7)])
    func intervalsHoldTheMedian(count: Int, rank: Int) {
        #expect(Comparison.Sample.rank(count) == rank)
    }

    @Test func whatIsNoReportIsSaid() throws {
        #expect(throws: PlanError.self) { try Comparison(Data("x".utf8), report([1]), noise: 0) }
        #expect(throws: PlanError.self) { try Comparison(report([1]), Data("{}".utf8), noise: 0) }
    }

    private func report(
        _ settings: (inout SaleConfiguration) throws -> Void = { _ in },
        _ load: (inout LoadFigures) -> Void = { _ in },
        oversoldBy: Int64 = 0
    ) throws -> Data {
        var chosen = SaleConfiguration()
        try settings(&chosen)
        var result = madeUpResult(load)
        result.audit = Audit(unauditedUnits: 1000, confirmedUnits: 1000 + oversoldBy, load: result.load)
        return try SaleReport(result, metadata: RunMetadata.json(chosen, audit: .none, started: .now)).json()
    }

    @Test func aBrokenRunIsWorse() throws {
        let base = try report()
        #expect(try verdict(base, report()) == .same)
        #expect(try verdict(base, report(oversoldBy: 1)) == .worse)
        #expect(try verdict(report(oversoldBy: 1), report(oversoldBy: 1)) == .worse, "a sale that lost its books is no match for any")
        #expect(try verdict(base, report({ _ in }, { $0.due = 20_000 })) == .worse, "a fifth of the rate was kept")
        let edited = String(decoding: base, as: UTF8.self).replacing("\"leaked\" : 0", with: "\"leaked\" : 50")
        #expect(try verdict(base, Data(edited.utf8)) == .worse)
    }

    /// What is compared must be the same sale, whatever it is that differs; the seed may.
    @Test func everySettingThatDiffersIsSaid() throws {
        func cautions(_ change: (inout SaleConfiguration) throws -> Void) throws -> [String] {
            try Comparison(report(), report(change), noise: 0).cautions.filter { $0.contains("different settings") }
        }
        #expect(try cautions { $0.seed = 99 } == [] && cautions { $0.gateway = "http://127.0.0.1:1" } == [])
        #expect(try cautions { $0.quantity = 2 } == ["the two were run with different settings: quantity"])
        #expect(try cautions { $0.products = 3 }.count == 1 && cautions { $0.timeout = .seconds(9) }.count == 1)
        #expect(try cautions { $0.habits.duplicates = 0.5 }.count == 1)
        #expect(try cautions { $0.disruptions = [try Disruption(fault: "redis:pause@1s")] }.count == 1)
        func stages(_ text: String) throws -> Data {
            try report { $0.arrivals = .schedule(try ArrivalSchedule(rate: nil, stages: text, bursts: []), .poisson, inFlight: 8) }
        }
        let staged = try Comparison(stages("0s:40,3s:40"), stages("0s:80,3s:80"), noise: 0).cautions
        #expect(staged.contains("the two were run with different settings: load"), "\(staged)")
    }

    @Test func aReportOfARealSaleCanBeCompared() throws {
        let one = try SaleReport(madeUpResult(), metadata: RunMetadata.json(SaleConfiguration(), audit: .none, started: .now)).json()
        let comparison = try Comparison(one, one, noise: 0)
        #expect(comparison.verdict == .same && comparison.rows.count >= 8)
        let several = try SaleReport.json(of: [SaleReport(madeUpResult()), SaleReport(madeUpResult())])
        #expect(try Comparison(one, several, noise: 0).rows.first?.second.count == 2)
    }
}
