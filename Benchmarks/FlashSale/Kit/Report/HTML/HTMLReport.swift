public import Foundation

/// A sale as one page: no script, no network, light and dark, for a desk and a phone.
struct HTMLReport {
    let report: SaleReport
    var result: SaleResult { report.result }

    /// Makes the page of one sale.
    init(_ report: SaleReport) {
        self.report = report
    }

    /// Each drawing twice: a drawing that shrinks takes its letters along.
    private func both(_ draw: (Double) -> String?) -> String {
        let wide = draw(980).map { "<div class=\"wide\">\($0)</div>" } ?? ""
        let narrow = draw(350).map { "<div class=\"narrow\">\($0)</div>" } ?? ""
        return wide + narrow
    }

    private static func legend(_ items: [(style: String, text: String)]) -> String {
        "<p class=\"legend\">" + items.map { "<span><i class=\"\($0.style)\"></i>\($0.text.htmlEscaped)</span>" }.joined() + "</p>"
    }

    private func section(_ title: String, _ content: String, id: String) -> String {
        content.isEmpty ? "" : "<section class=\"card\" id=\"\(id)\"><h2>\(title.htmlEscaped)</h2>\(content)</section>"
    }

    private var faultItem: [(style: String, text: String)] { result.faults.isEmpty ? [] : [("fault", "fault")] }

    /// The page.
    var text: String {
        let load = result.load
        let present = OrderOutcome.allCases.filter { load.latencies(of: $0).count > 0 }.map {
            (style: Self.style($0), text: report.name(of: $0))
        }
        let meant = load.due > 0 ? [(style: "meant", text: "meant to be sent")] : []
        var badges = [
            (
                result.audit.passes,
                result.audit.basis == .none && result.audit.passes ? "not audited" : result.audit.passes ? "audit pass" : "audit fail"
            )
        ]
        if report.firstMissed != nil { badges.append((false, "threshold missed")) }
        let badge = badges.map { "<em class=\"\($0.0 ? "good" : "bad")\">\($0.1)</em>" }.joined(separator: " ")
        let when = report.metadata?["started"]?.text ?? ""
        var page = """
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>
            <meta name="color-scheme" content="light dark"/><title>Flash sale of product \(result.product)</title><style>\(Self.style)</style></head><body><main>
            <header><h1>Flash sale of product \(result.product) \(badge)</h1>
            <p>\(summary.htmlEscaped)</p><p class="when">\(when.htmlEscaped)</p></header>
            """
        page += tiles
        page += section(
            "Orders a second",
            both(throughputChart) + both(breakerStrip) + Self.legend(present + meant + faultItem),
            id: "throughput"
        )
        page += section(
            "Latency over time",
            both(latencyChart) + Self.legend([("p50", "p50"), ("p99", "p99"), ("p999", "p99.9")] + faultItem)
                + "<p class=\"note\">From the moment an order was meant to be sent to its last answer, repeats included.</p>",
            id: "latency"
        )
        let stock = both(stockChart)
        if !stock.isEmpty {
            page += section("Stock", stock + Self.legend([("redis", "Redis"), ("database", "PostgreSQL")] + faultItem), id: "stock")
        }
        page += section("Latency by percentile", both(distributionChart) + Self.legend(present), id: "distribution")
        page += section("The audit", audit, id: "audit")
        page += section("Outcomes", outcomes, id: "outcomes")
        page += section("Faults", faults, id: "faults")
        page += section("Thresholds and the harness itself", verdicts, id: "verdicts")
        page += section("What happened", result.story.isEmpty ? "" : story, id: "story")
        page += section("Settings and machine", settings, id: "settings")
        return page + "<footer>made by flash-sale \(RunMetadata.version)</footer></main></body></html>\n"
    }

    private var summary: String {
        let load = result.load
        var text =
            result.audit.confirmed.map {
                "\(Int($0).grouped) of \(Int(result.audit.initial).grouped) units sold to \(load.orders.grouped) orders in "
            } ?? "\(load.acceptedOrders.count.grouped) of \(load.orders.grouped) orders accepted, to be decided later, in "
        text += "\(Sale.decimal(result.duration.inSeconds)) s"
        if !result.faults.isEmpty {
            let faults = result.faults.map { fault in
                let seconds = (fault.to ?? end) - fault.from
                // What is done once lasts no time.
                return fault.words + (seconds > 0.05 ? " for \(Sale.decimal(seconds)) s" : "")
            }
            text += ", while " + faults.joined(separator: ", ")
        }
        return text + "."
    }
}

extension SaleReport {
    /// One self-contained page.
    public func html() -> Data { Data(HTMLReport(self).text.utf8) }
}
