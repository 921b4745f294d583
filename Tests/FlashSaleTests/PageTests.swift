import Foundation
import FoundationXML
import Testing

@testable import FlashSaleKit

@Suite("The page")
struct PageTests {
    /// A sale with every kind of thing that a page draws.
    private func result() -> SaleResult { Self.result }

    private static let result: SaleResult = {
        var result = madeUpResult { load in
            load.phases[1].byOutcome[OrderOutcome.refused.rawValue].record(microseconds: 5)
            load.phases[1].byOutcome[OrderOutcome.error.rawValue].record(microseconds: 119_000_000)
            load.countFailure("<script>alert(1)</script>")
        }
        for second in 1...20 {
            var look = LoadGenerator.Look(interval: IntervalFigures(), totals: LoadTotals(), elapsed: .seconds(second), limit: .ownPace)
            if second != 7 {
                look.interval.outcomes = [100 * second, 5, 1, 0]
                for step in 1...100 { look.interval.latencies.record(microseconds: Int64(step * second * 10)) }
            }
            look.interval.due = 90
            let log = SaleLog()
            log.look("CLOSED")
            if second % 3 > 0 { log.saw(redis: Int64(1000 - second * 50), database: Int64(1000 - second * 49)) }
            result.points.append(SalePoint(look, seconds: 1, log: log))
        }
        result.duration = .seconds(20)
        result.faults = [
            FaultSpan(server: "redis", what: "killed", from: 4, to: 9), FaultSpan(server: "redis", what: "flushed", from: 10, to: 10),
            FaultSpan(server: "order-1", what: "paused", from: 12, to: nil),
        ]
        result.transitions = [
            BreakerTransition(atSeconds: 4.2, from: "CLOSED", to: "OPEN", reason: nil, inferred: false),
            BreakerTransition(atSeconds: 9.5, from: "OPEN", to: "HALF_OPEN", reason: nil, inferred: false),
            BreakerTransition(atSeconds: 9.8, from: "HALF_OPEN", to: "CLOSED", reason: nil, inferred: false),
        ]
        result.story = [Story.Line(at: .seconds(4), text: "redis killed & \"<gone>\"")]
        return result
    }()

    /// What is wrong with a text as XML, nil if nothing is.
    private func problem(_ page: String) -> String? {
        let parser = XMLParser(data: Data(page.utf8))
        return parser.parse() ? nil : "line \(parser.lineNumber): \(String(describing: parser.parserError))"
    }

    /// Only orders that were confirmed end a silence, only silences that begin during the fault are its own, and one that nothing ends has no length. The length
    /// is that of the confirmations, whatever the intervals are.
    @Test func theLongestTimeWithoutASaleIsTold() throws {
        var result = result()
        // Each tenth of a second, but for two holes, one of which a fault begins in; the last is at 15.2 s of 20.
        for tenth in 1...152 where !(21..<60).contains(tenth) && !(100..<112).contains(tenth) {
            result.load.moments.add(milliseconds: Int64(tenth) * 100)
        }
        func silence(_ from: Double, _ to: Double?) -> Double? {
            SaleReport(result).longestSilence(during: FaultSpan(server: "redis", what: "killed", from: from, to: to))
        }
        #expect(silence(1, 3) == 4)
        #expect(silence(4.123, 9) == 1.877, "from the fault on")
        #expect(silence(8, 9) == 0.1, "the one after it does not count")
        #expect(silence(9.95, 9.95) == 1.25)
        #expect(silence(14, nil) == nil)
        let lines = SaleReport(result).faultLines
        #expect(lines.contains("redis was killed at 4.0 s: 2.00 s at the longest without an order confirmed"), "\(lines)")
        #expect(lines.contains("order-1 was paused at 12.0 s: no order was confirmed from 15.2 s to the end"), "\(lines)")
        result.duration = .seconds(15.3)
        #expect(silence(14, nil) == 0.1, "a sale that ends by its orders ends a little after the last of them")
        // Two threads' confirmations are those of one sale.
        var (one, other) = (SaleMoments(), SaleMoments())
        one.add(milliseconds: 100)
        other.add(milliseconds: 700)
        one.add(other)
        #expect(one.silence(from: 0, to: 99) == SaleMoments.Silence(longest: 100, openSince: nil))
        #expect(one.silence(from: 0, to: 5000) == SaleMoments.Silence(longest: 600, openSince: 700))
    }

    private func page(_ result: SaleResult) throws -> String {
        let metadata = RunMetadata.json(SaleConfiguration(), audit: .none, started: .now)
        return HTMLReport(SaleReport(result, requirements: try Requirement.list("p99<1ms,generator=ok"), metadata: metadata)).text
    }

    @Test func isWholeAndAsksForNothing() throws {
        let page = try page(result())
        #expect(problem(page) == nil)
        #expect(!page.contains("<script") && !page.contains("<link") && !page.contains("src=") && !page.contains("url("))
        #expect(!page.contains("http:") && !page.contains("https:") || page.contains("gateway"), "the settings name the gateway alone")
        #expect(page.contains("prefers-color-scheme:dark") && page.contains("width=device-width"))
        #expect(!page.lowercased().contains("nan ") && !page.contains("inf ") && !page.contains("nan\""))
    }

    @Test func drawsEverythingForADeskAndForAPhone() throws {
        let page = try page(result())
        #expect(page.components(separatedBy: "<svg").count - 1 == 10, "five drawings, each twice")
        #expect(page.components(separatedBy: "class=\"fault\" x=").count - 1 == 18, "three faults in three drawings, each twice")
        #expect(page.contains("while redis was killed for 5.0 s, redis was flushed, order-1 was paused for 8.0 s."))
        for state in ["OPEN", "HALF_OPEN", "CLOSED"] { #expect(page.contains("breaker \(state)\"")) }
        for style in ["confirmed", "soldout", "refused", "error", "p99", "redis", "database", "meant"] {
            #expect(page.contains(" \(style)\" d=\"M"), "\(style)")
        }
        #expect(page.contains("threshold missed") && page.contains("not audited"))
        #expect(page.contains("redis killed &amp; &quot;&lt;gone&gt;&quot;") && page.contains("&lt;script&gt;alert(1)"))
    }

    /// The page cut off what the text rounds: 5,096 there was 5,097 here.
    @Test func aRateIsTheSameAsInTheText() throws {
        var result = result()
        result.load.phases[1].confirmed = 8
        result.load.phases[1].time = .seconds(5)
        let orders = result.load.phases[1].orders
        #expect(SaleReport.rate(8, over: .seconds(5)) == "2")
        #expect(try page(result).contains("<td>\(orders.grouped)</td><td>\(SaleReport.rate(orders, over: .seconds(5)))</td>"))
    }

    @Test func aSaleOfNothingIsStillAPage() throws {
        var result = madeUpResult { $0 = LoadFigures() }
        result.duration = .zero
        #expect(try problem(page(result)) == nil)
    }

    @Test func whatTheStoresDoNotBearOutIsListed() throws {
        var result = result()
        var matching = OrderMatching()
        matching.addLostAnswer(order: 77, because: "there is no such order", key: "run-0-9")
        result.audit = Audit(
            Audit.Input(
                product: ProductRow(stock: 0, fence: 1, initialStock: 5),
                ledger: LedgerTotals(sold: 6, returned: 0, restocked: 0),
                orders: OrderTotals(confirmedUnits: 6, confirmed: 6, pending: 0),
                redis: nil,
                matching: matching
            )
        )
        let page = try page(result)
        #expect(problem(page) == nil)
        #expect(page.contains("audit fail") && page.contains("run-0-9") && page.contains("<td>77</td>") && page.contains("oversold=1"))
    }

    @Test(arguments: [
        (0.0...10.0, 5, [0.0, 2, 4, 6, 8, 10]), (0...1, 4, [0, 0.5, 1]), (0...3_043, 5, [0, 1000, 2000, 3000]), (-5...5, 2, [-5, 0, 5]),
    ])
    func ticksAreRound(range: ClosedRange<Double>, count: Int, expected: [Double]) {
        #expect(Plot.ticks(range, count: count) == expected)
    }

    @Test(arguments: [(0.0, "0"), (0.25, "0.25"), (5.0, "5"), (1500, "1.5k"), (20_000, "20k"), (2_500_000, "2.5M"), (-1000, "-1k")])
    func labelsAreShort(value: Double, expected: String) {
        #expect(Plot.label(value) == expected)
    }

    /// What the text tells, the page tells as well.
    @Test func tellsOfTheRateTheHabitsAndTheFaults() throws {
        var result = result()
        result.load.duplicates = 30
        result.load.cancelledOrders = [1, 2]
        let page = try page(result)
        for line in SaleReport(result).faultLines { #expect(page.contains("<li>\(line.htmlEscaped)</li>"), "\(line)") }
        #expect(page.contains("rate: 4,004 of the 4,400 orders meant by then were sent (91.0 %)"))
        #expect(page.contains("30 orders sent twice under one key") && page.contains("2 orders cancelled, 0 cancellations"))
        #expect(page.components(separatedBy: "class=\"tick number\"").count - 1 == 18, "each band has the number of its line")
        #expect(page.components(separatedBy: "<td>seed</td>").count - 1 == 1)
    }

    @Test func offendersBeyondTheTableAreCounted() throws {
        var result = result()
        var matching = OrderMatching()
        for id in 1...73 { matching.addLostAnswer(order: Int64(id), because: "there is no such order") }
        result.audit = Audit(
            Audit.Input(
                product: ProductRow(stock: 0, fence: 1, initialStock: 5),
                ledger: LedgerTotals(sold: 5, returned: 0, restocked: 0),
                orders: OrderTotals(confirmedUnits: 5, confirmed: 5, pending: 0),
                redis: nil,
                matching: matching
            )
        )
        #expect(try page(result).contains("and 23 more; "))
    }

    @Test func ordersThatAreAcceptedAreNotCalledConfirmed() throws {
        var result = result()
        result.isAsync = true
        result.load.acceptedOrders = Array(1...110)
        result.audit = Audit(unauditedUnits: 60, confirmedUnits: nil, load: result.load)
        let page = try page(result)
        #expect(page.contains("<th>accepted</th>") && page.contains("orders accepted, to be decided later, in"))
        #expect(!page.contains("<td>confirmed</td>") && !page.contains("<th>confirmed</th>") && !page.contains("p50 confirmed"))
        #expect(!page.contains("units sold to"))
    }
}
