import SeededRandom
import Testing

@testable import FlashSaleKit

@Suite("What can be asked for")
struct PlanTests {
    @Test(arguments: [
        ("4s", Duration.seconds(4)), ("1.5s", .milliseconds(1500)), ("250ms", .milliseconds(250)), ("2m", .seconds(120)), ("0s", .zero),
    ])
    func duration(text: String, expected: Duration) throws {
        #expect(try Duration(span: text) == expected)
    }

    @Test(arguments: ["", "4", "s", "-1s", "1h", "nans", "infs", "1e9s", "4 s s", "4s9"])
    func noDuration(text: String) {
        #expect(throws: PlanError.self) { try Duration(span: text) }
    }

    @Test(arguments: [("8000/s", 8000.0), ("8000", 8000), ("30/m", 0.5)])
    func rate(text: String, expected: Double) throws {
        #expect(try ArrivalRate(text).perSecond == expected)
    }

    @Test(arguments: ["", "0/s", "-5", "x/s", "2000000/s", "nan", "5/h"])
    func noRate(text: String) {
        #expect(throws: PlanError.self) { try ArrivalRate(text) }
    }

    @Test func outages() throws {
        let seconds = try Disruption(server: "redis", kind: .kill, span: "4s..9s")
        #expect(seconds.start == .elapsed(.seconds(4)))
        #expect(seconds.end == .at(.elapsed(.seconds(9))))
        let parts = try Disruption(server: "redis", kind: .pause, span: "25%..60%")
        #expect(parts.start == .sold(0.25))
        #expect(parts.end == .at(.sold(0.6)))
        let length = try Disruption(server: "redis", kind: .kill, span: "30%+5s")
        #expect(length.start == .sold(0.3))
        #expect(length.end == .after(.seconds(5)))
        #expect(try Disruption(server: "redis", kind: .kill, span: "4s").end == .after(.seconds(1)))
        let kill = try Disruption(kill: "product-2@5s..6s")
        #expect(kill.server == "product-2")
        #expect(kill.start == .elapsed(.seconds(5)))
    }

    @Test(arguments: ["", "9s..4s", "4s..4s", "60%..30%", "100%+5s", "-1%+5s", "4s+0s", "4s..", "..9s", "30%+5%", "4s...9s"])
    func noOutage(span: String) {
        #expect(throws: PlanError.self) { try Disruption(server: "redis", kind: .kill, span: span) }
    }

    @Test(arguments: ["product", "@5s", "pro duct@5s", "-rf@5s", "a;b@5s", "product@"])
    func noKill(text: String) {
        #expect(throws: PlanError.self) { try Disruption(kill: text) }
    }

    @Test(arguments: [
        ("even", ProductSpread.even), ("hot", .hot(0.9)), ("hot:75%", .hot(0.75)), ("zipf", .zipf(1)), ("zipf:1.5", .zipf(1.5)),
    ])
    func spreads(text: String, expected: ProductSpread) throws {
        #expect(try ProductSpread(text) == expected)
    }

    @Test(arguments: ["", "hot:", "hot:5", "hot:101%", "zipf:-1", "zipf:x", "even:5%", "zip"])
    func noSpreads(text: String) {
        #expect(throws: PlanError.self) { try ProductSpread(text) }
    }

    @Test(arguments: [
        (ProductSpread.even, [0.25, 0.25, 0.25, 0.25]), (.hot(0.7), [0.7, 0.1, 0.1, 0.1]), (.zipf(1), [0.48, 0.24, 0.16, 0.12]),
        (.hot(1), [1, 0, 0, 0]),
    ])
    func productsAreChosenBySpread(spread: ProductSpread, parts: [Double]) {
        let choice = ProductChoice(spread, count: 4)
        var generator = SplitMix64(seed: 3)
        var counts = [0, 0, 0, 0]
        for _ in 0..<20_000 { counts[choice.next(using: &generator)] += 1 }
        for (count, part) in zip(counts, parts) { #expect(abs(Double(count) / 20_000 - part) < 0.02, "\(counts)") }
    }

    @Test func aLongSaleIsNotCutOffByTheUsualLimit() throws {
        var settings = SaleConfiguration()
        #expect(settings.usualLimit == .seconds(180))
        settings.lasts = .seconds(600)
        #expect(settings.usualLimit == .seconds(660))
        settings.arrivals = .schedule(try ArrivalSchedule(rate: nil, stages: "500s:10,400s:20", bursts: []), .even, inFlight: 10)
        #expect(settings.usualLimit == .seconds(960))
    }

    @Test func theSameSeedGivesTheSameArrivals() {
        var one = SplitMix64(seed: 7)
        var two = SplitMix64(seed: 7)
        var sum = 0.0
        for _ in 0..<20_000 {
            let wait = one.interarrival(perSecond: 1000)
            #expect(wait == two.interarrival(perSecond: 1000))
            sum += wait
        }
        #expect(abs(sum - 20) < 0.6, "20,000 arrivals at 1,000 a second take about 20 s, these took \(sum)")
    }

    @Test func retriesAreBoundedJitteredAndHeedTheServer() throws {
        let policy = RetryPolicy(limit: 3)
        var generator = SplitMix64(seed: 1)
        for attempt in 1...3 {
            let full = Duration.milliseconds(50 * (1 << (attempt - 1)))
            let wait = try #require(policy.wait(afterAttempt: attempt, retryAfter: nil, using: &generator))
            #expect(wait >= full / 2 && wait <= full)
        }
        #expect(policy.wait(afterAttempt: 4, retryAfter: nil, using: &generator) == nil)
        #expect(policy.wait(afterAttempt: 1, retryAfter: .seconds(1), using: &generator) == .seconds(1))
        #expect(policy.wait(afterAttempt: 1, retryAfter: .seconds(3600), using: &generator) == .seconds(5))
        #expect(RetryPolicy(limit: 0).wait(afterAttempt: 1, retryAfter: nil, using: &generator) == nil)
        let late = try #require(RetryPolicy(limit: 100).wait(afterAttempt: 90, retryAfter: nil, using: &generator))
        #expect(late <= .seconds(2))
    }
}

@Suite("Units are kept for the end of the story")
struct UnitBudgetTests {
    private func budget(_ spans: String...) throws -> UnitBudget {
        UnitBudget(units: 20_000, disruptions: try spans.map { try Disruption(server: "redis", kind: .kill, span: $0) })
    }

    private func rate(_ limit: UnitBudget.Limit) -> Double {
        if case .perSecond(let rate) = limit { rate } else { .infinity }
    }

    @Test func aPartOfTheUnitsComesBySellingAtOwnPace() throws {
        let budget = try budget("30%+5s")
        #expect(budget.limit(in: .approaching(0), sold: 5_999, elapsed: .seconds(1), sinceStage: .seconds(1)) == .ownPace)
    }

    @Test func anOutageStartsAtOwnPaceAndIsThenHeldBack() throws {
        let budget = try budget("30%+5s")
        // Its share reaches from 30 % to 65 %; half of it goes at the machine's own pace.
        #expect(budget.limit(in: .down(0), sold: 6_100, elapsed: .seconds(1), sinceStage: .zero) == .ownPace)
        #expect(budget.limit(in: .down(0), sold: 9_400, elapsed: .seconds(2), sinceStage: .seconds(1)) == .ownPace)
        let held = rate(budget.limit(in: .down(0), sold: 9_600, elapsed: .seconds(2), sinceStage: .seconds(1)))
        #expect(held > 250 && held < 350, "3,400 units over 11 s")
        #expect(rate(budget.limit(in: .down(0), sold: 13_500, elapsed: .seconds(9), sinceStage: .seconds(60))) == UnitBudget.floor)
    }

    @Test func anOutageThatDragsOnNeverEatsWhatIsKept() throws {
        let budget = try budget("30%+5s")
        var sold = 6_000.0
        var time = 0.0
        // Ten minutes instead of twelve seconds.
        while time < 600 {
            let limit = budget.limit(in: .down(0), sold: Int(sold), elapsed: .seconds(time), sinceStage: .seconds(time))
            sold += min(rate(limit), 6_000) * 0.01
            time += 0.01
        }
        #expect(sold < 13_000 + UnitBudget.floor * 600)
        #expect(sold > 12_900)
    }

    @Test func afterTheLastOutageNothingIsHeldBack() throws {
        #expect(try budget("30%+5s").limit(in: .open, sold: 19_000, elapsed: .seconds(20), sinceStage: .zero) == .ownPace)
        #expect(try budget("4s..9s").limit(in: .open, sold: 0, elapsed: .seconds(20), sinceStage: .zero) == .ownPace)
    }

    @Test func momentsInSecondsHoldBackTheApproachToo() throws {
        let budget = try budget("4s..9s")
        #expect(budget.limit(in: .approaching(0), sold: 3_000, elapsed: .seconds(0.5), sinceStage: .seconds(0.5)) == .ownPace)
        let held = rate(budget.limit(in: .approaching(0), sold: 3_400, elapsed: .seconds(0.6), sinceStage: .seconds(0.6)))
        #expect(held > 900 && held < 1_000, "3,267 units over 3.4 s")
    }

    @Test func twoOutagesShareTheUnits() throws {
        let budget = try budget("20%+1s", "60%+1s")
        // The first outage's share ends between the two, at 40 %.
        #expect(rate(budget.limit(in: .recovering(0), sold: 8_000, elapsed: .seconds(9), sinceStage: .seconds(1))) == UnitBudget.floor)
        #expect(budget.limit(in: .approaching(1), sold: 8_100, elapsed: .seconds(9), sinceStage: .zero) == .ownPace)
        #expect(rate(budget.limit(in: .down(1), sold: 14_100, elapsed: .seconds(9), sinceStage: .zero)) < 1_000)
    }

    @Test func anOutageThatEndsBySellingIsNotHeldBack() throws {
        let budget = try budget("25%..60%")
        #expect(budget.limit(in: .down(0), sold: 11_000, elapsed: .seconds(3), sinceStage: .seconds(2)) == .ownPace)
        #expect(rate(budget.limit(in: .recovering(0), sold: 15_500, elapsed: .seconds(4), sinceStage: .zero)) < 200)
    }
}
