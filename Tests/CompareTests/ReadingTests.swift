import FlashSaleKit
import Testing

@testable import CompareKit

@Suite("What other programs print")
struct ReadingTests {
    private let pgbench = """
        pgbench (15.5 (Debian 15.5-0+deb12u1))
        transaction type: hot-row.sql
        scaling factor: 1
        query mode: prepared
        number of clients: 32
        number of transactions actually processed: 6843
        number of failed transactions: 0 (0.000%)
        latency average = 14.025 ms
        initial connection time = 77.114 ms
        tps = 2281.601253 (without initial connection time)
        """

    @Test func pgbenchsReport() throws {
        let report = try #require(PgbenchReport(pgbench))
        #expect(report.transactions == 6843)
        #expect(report.perSecond == 2281.601253)
        #expect(report.averageLatency == 14.025)
        #expect(report.failed == 0)
        #expect(PgbenchReport(pgbench.replacing("tasks", with: "").replacing("tps = 2281.601253", with: "tps = ")) == nil)
        #expect(PgbenchReport("pgbench: error: connection to server failed") == nil)
        #expect(PgbenchReport(pgbench.replacing("failed transactions: 0", with: "failed transactions: 3"))?.failed == 3)
    }

    private func text(_ counts: [Int]) -> String {
        """
        # HELP stockgate_outbox_relay_seconds x
        stockgate_outbox_relay_seconds_bucket{kind="events",le="0.001"} 900
        stockgate_outbox_relay_seconds_bucket{kind="commands",le="0.001"} \(counts[0])
        stockgate_outbox_relay_seconds_bucket{kind="commands",le="0.01"} \(counts[1])
        stockgate_outbox_relay_seconds_bucket{kind="commands",le="+Inf"} \(counts[2])
        stockgate_order_events_dropped_total 3
        stockgate_order_events_dropped_total_of_others 40
        calls{a="1"} 5
        calls{a="2"} 6
        """
    }

    @Test func aHistogramBetweenTwoLooks() {
        func look(_ counts: [Int]) -> MetricsText.Histogram {
            MetricsText(text(counts)).buckets("stockgate_outbox_relay_seconds", label: "kind=\"commands\"")
        }
        let delays = look([150, 199, 200]).since(look([100, 100, 100]))
        #expect(delays.buckets.map(\.count) == [50, 99, 100])
        #expect(delays.bound(at: 0.5) == 0.001)
        #expect(delays.bound(at: 0.99) == 0.01)
        #expect(delays.bound(at: 0.995) == .infinity)
        #expect(look([1, 1, 1]).since(look([1, 1, 1])).bound(at: 0.5) == nil)
    }

    @Test func sumsOfAMetric() {
        let metrics = MetricsText(text([1, 2, 3]))
        #expect(metrics.sum("calls") == 11)
        #expect(metrics.sum("stockgate_order_events_dropped_total") == 3)
        #expect(metrics.sum("missing") == 0)
    }

    @Test func portsOfAddresses() {
        #expect(PeerStand.port(in: "redis://127.0.0.1:7000") == 7000)
        #expect(PeerStand.port(in: "postgresql://a:b@127.0.0.1:5433/d") == 5433)
        #expect(PeerStand.port(in: "redis://x") == nil)
        #expect(PeerStand.port(in: nil) == nil)
    }
}

@Suite("Medians")
struct MedianTests {
    @Test func theMiddle() {
        #expect([Double]().median == nil)
        #expect([7.0].median == 7)
        #expect([9.0, 1, 5].median == 5)
        #expect([9.0, 1, 5, 100].median == 7)
    }
}
