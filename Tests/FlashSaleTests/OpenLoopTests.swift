import Foundation
import NIOCore
import NIOPosix
import Testing

@testable import FlashSaleKit

@Suite("An open loop", .timeLimit(.minutes(10)))
struct OpenLoopTests {
    private func hold(_ faults: Shop.Faults = Shop.Faults(), _ change: (inout SaleConfiguration) throws -> Void) async throws -> SaleResult
    {
        let shop = Shop(faults: faults)
        var settings = SaleConfiguration()
        settings.units = 100
        settings.orders = .max
        settings.settle = .seconds(60)
        settings.limit = .seconds(300)
        settings.gateway = try await shop.open()
        settings.productServer = settings.gateway
        settings.interval = .milliseconds(100)
        settings.seed = 5
        try change(&settings)
        let console = Console(isTerminal: false, isQuiet: true) { _ in }
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        do {
            let result = try await Sale(settings: settings, stack: nil, source: shop, console: console, eventLoop: loop).run()
            await shop.close()
            return result
        } catch {
            await shop.close()
            throw error
        }
    }

    private func open(_ stages: String?, _ bursts: [String] = [], inFlight: Int = 64) throws -> Arrivals {
        .schedule(try ArrivalSchedule(rate: nil, stages: stages, bursts: bursts), .even, inFlight: inFlight)
    }

    @Test(arguments: [1, 3]) func stagesAreSentToTheirEndByAnyNumberOfThreads(threads: Int) async throws {
        let result = try await hold {
            // A place for every order: a machine that stands still sheds none.
            $0.arrivals = try open("400ms:500,0s:1000,400ms:1000", inFlight: 600)
            $0.threads = threads
        }
        #expect(result.audit.passes, "\(result.audit.findings)")
        #expect(abs(result.load.due - 500) <= 3 && result.load.sent == result.load.due && result.load.orders == result.load.sent)
        #expect(result.load.confirmed == 100 && result.load.unitsConfirmed == 100)
        #expect(result.load.attainment == 1 && result.load.health.threads == threads)
        #expect(result.load.health.sendLag.count == result.load.sent)
        // The points are the whole sale, in pieces.
        #expect(result.points.reduce(0) { $0 + $1.orders } == result.load.orders)
        #expect(result.points.reduce(0) { $0 + $1.sent } == result.load.sent)
        #expect(result.points.reduce(0) { $0 + $1.histogram.reduce(0) { $0 + Int($1.count) } } == result.load.orders)
        #expect(result.points.contains { $0.databaseStock != nil })
    }

    /// One generator's clock stops with its last order, another one's goes on; so the last look may be as old as the last point, and still tell of orders.
    @Test func whatEndsWithTheLastPointIsCounted() {
        let log = SaleLog()
        var interval = IntervalFigures()
        interval.sent = 3
        interval.outcomes = [1, 2, 0, 0]
        interval.latencies.record(microseconds: 1_000)
        func look(_ elapsed: Duration) -> LoadGenerator.Look {
            .init(interval: interval, totals: LoadTotals(), elapsed: elapsed, limit: .ownPace)
        }
        for elapsed in [Duration.zero, .milliseconds(500), .milliseconds(500), .milliseconds(499), .milliseconds(501)] {
            log.addRest(look(elapsed))
        }
        #expect(log.points.map(\.sent) == [3, 9, 3])
        #expect(log.points.map(\.orders) == [3, 9, 3])
        #expect(log.points.map { $0.histogram.map(\.count) } == [[1], [3], [1]])
        #expect(log.points.map { $0.latency.last ?? 0 }.allSatisfy { $0 >= 1 })
    }

    @Test func aBurstWaitsAsLongAsTheDeadlineAllows() async throws {
        var faults = Shop.Faults()
        faults.delay = .milliseconds(50)
        let patient = try await hold(faults) {
            $0.arrivals = try open(nil, ["200@50ms"], inFlight: 40)
            $0.deadline = .seconds(20)
        }
        #expect(patient.load.sent == 200 && patient.load.shed == 0 && patient.load.stale == 0)
        // Five rounds of 40: the last ones waited for four others, and that counts.
        #expect(patient.load.latencies.maximum >= 245)
        let hasty = try await hold(faults) {
            $0.arrivals = try open(nil, ["200@50ms"], inFlight: 40)
            $0.deadline = .milliseconds(20)
        }
        #expect(hasty.load.sent == 40 && hasty.load.stale == 160 && hasty.load.due == 200)
        #expect(hasty.load.attainment == 0.2)
        // Each interval tells the two apart, as the whole does.
        #expect(hasty.points.reduce(0) { $0 + $1.stale } == 160 && hasty.points.allSatisfy { $0.shed == 0 })
        let table = String(decoding: SaleReport(hasty).csv(), as: UTF8.self).split(separator: "\r\n")
        #expect(table.first?.contains("due,shed,stale,in_flight,confirmed") == true)
        #expect(table.allSatisfy { $0.split(separator: ",", omittingEmptySubsequences: false).count == 20 })
        let none = try await hold(faults) { $0.arrivals = try open(nil, ["200@50ms"], inFlight: 40) }
        #expect(none.load.sent == 40 && none.load.shed == 160 && none.load.stale == 0)
    }

    @Test func anOrderIsNotRepeatedBeyondItsDeadline() async throws {
        var faults = Shop.Faults()
        faults.refusesAll = true
        let result = try await hold(faults) {
            $0.orders = 10
            $0.arrivals = .concurrency(2)
            $0.retries = 100
            $0.deadline = .seconds(1)
        }
        #expect(result.load.errors == 10 && result.load.failReasons["DEADLINE"] == 10 && result.load.stale == 10)
        #expect(result.load.retries >= 10 && result.load.retries < 60)
    }

    @Test func aClosedLoopMayLastATime() async throws {
        var faults = Shop.Faults()
        faults.delay = .milliseconds(10)
        let result = try await hold(faults) {
            $0.arrivals = .concurrency(4)
            $0.lasts = .seconds(1)
        }
        #expect(result.duration >= .seconds(1) && result.load.orders > 4)
        // Four at a time, none of which is answered within ten milliseconds.
        #expect(result.load.orders <= 4 * (Int(result.duration / .milliseconds(10)) + 1))
    }

    @Test func theLinesAreWritten() async throws {
        let result = try await hold { $0.arrivals = try open("300ms:800") }
        let report = SaleReport(result)
        let lines = try String(decoding: report.ndjson(), as: UTF8.self).split(separator: "\n").map {
            try JSONDecoder().decode(ReportValue.self, from: Data($0.utf8))
        }
        #expect(lines.count == result.points.count && !lines.isEmpty)
        let counted = lines.reduce(0.0) { sum, line in
            sum + (line["histogram"]?.list ?? []).reduce(0.0) { $0 + ($1.list?.last?.number ?? 0) }
        }
        #expect(Int(counted) == result.load.orders)
        let csv = String(decoding: report.csv(), as: UTF8.self).components(separatedBy: "\r\n")
        #expect(
            csv.count == result.points.count + 2
                && Set(csv.dropLast().map { $0.split(separator: ",", omittingEmptySubsequences: false).count }) == [20]
        )
        let hgrm = String(decoding: report.hgrm(), as: UTF8.self)
        #expect(hgrm.contains("Percentile") && hgrm.contains("#[Max"))
        #expect(
            hgrm.contains("Total count    = \(String(repeating: " ", count: 12 - String(result.load.orders).count))\(result.load.orders)]")
        )
    }
}
