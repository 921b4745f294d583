// What the table and the page say in the same words.
extension SaleReport {
    /// What buyers were told at once: an order that is decided later is accepted, and may still fail.
    var promise: String { result.isAsync ? "accepted" : "confirmed" }

    /// The outcome as this sale's report names it.
    func name(of outcome: OrderOutcome) -> String { outcome == .confirmed ? promise : outcome.name }

    /// The two times of orders that are decided later, one below the other: until they were accepted, and until they were decided.
    func decidedLater(_ drain: Drain) -> [[String]] {
        func row(_ name: String, _ orders: Int, _ rate: Double, _ latencies: Latencies) -> [String] {
            [name, orders.grouped, Int(rate).grouped] + percentiles.map { Sale.decimal(latencies.milliseconds(at: $0)) } + [
                Sale.decimal(latencies.maximum)
            ]
        }
        return [
            ["decided later, ms", "orders", "/s"] + percentiles.map { "p\($0.plain)" } + ["max"],
            row("accepted", result.load.acceptedOrders.count, acceptThroughput, result.load.acceptLatencies),
            row("final state", drain.latencies.count, drain.throughput, drain.latencies),
        ]
    }

    static func words(_ drain: Drain) -> String {
        "\(drain.confirmed.grouped) confirmed; all decided \(Sale.decimal(drain.seconds)) s after the last was accepted"
    }

    /// A line for each thing that buyers did beside ordering.
    var habitLines: [String] {
        let load = result.load
        var lines: [String] = []
        if load.duplicates > 0 {
            lines.append("\(load.duplicates.grouped) orders sent twice under one key, \(load.conflicts.grouped) answered in two ways")
        }
        if !load.cancelledOrders.isEmpty || load.cancellationsFailed > 0 {
            lines.append(
                "\(load.cancelledOrders.count.grouped) orders cancelled, \(load.cancellationsFailed.grouped) cancellations refused or given up"
            )
        }
        if load.views > 0 {
            let times =
                "p50 \(Sale.decimal(load.viewLatencies.milliseconds(at: 50))) ms, p99 \(Sale.decimal(load.viewLatencies.milliseconds(at: 99))) ms"
            lines.append("\(load.views.grouped) looks at the product, \(times), \(load.viewErrors.grouped) not answered with it")
        }
        return lines
    }

    /// How much of an open loop's rate was kept; nil for a closed loop, which has none to keep.
    var rateLine: String? {
        let load = result.load
        guard load.due > 0 else { return nil }
        let percent = (load.attainment * 100).digits(1)
        return "rate: \(load.sent.grouped) of the \(load.due.grouped) orders meant by then were sent (\(percent) %)"
    }
}
