import Foundation

// The drawings, each made for a width in pixels: one for a desk, one for a phone.
extension HTMLReport {
    /// Until when the drawings reach, in seconds.
    var end: Double { max(result.points.last?.at ?? 0, result.duration.inSeconds, 0.1) }

    private func timeTicks(_ width: Double) -> [(at: Double, text: String)] {
        Plot.ticks(0...end, count: width > 600 ? 10 : 5).map { ($0, "\(Plot.label($0)) s") }
    }

    private func timePlot(_ width: Double, _ height: Double, y: ClosedRange<Double>, _ scale: Plot.Scale = .linear) -> Plot {
        Plot(width: width, height: height, x: 0...end, y: y, yScale: scale)
    }

    /// Faults as bands, behind everything else. A pointer finds a band's words; its number is that of the list, for paper and for a finger.
    private func outages(_ plot: Plot) -> String {
        result.faults.enumerated().map { index, fault in
            let title = "\(fault.words), \(fault.from.digits(1)) s to \((fault.to ?? end).digits(1)) s"
            let middle = (plot.px(fault.from) + plot.px(fault.to ?? end)) / 2
            return plot.band(fault.from, fault.to ?? end, "fault", title: title)
                + #"<text class="tick number" text-anchor="middle" x="\#(Plot.n(middle))" y="\#(Plot.n(plot.top + 12))">\#(index + 1)</text>"#
        }.joined()
    }

    /// Orders a second, stacked by outcome.
    func throughputChart(_ width: Double) -> String {
        let points = result.points.filter { $0.seconds > 0.02 }
        let highest = points.map { Double($0.orders) / $0.seconds }.max() ?? 1
        let plot = timePlot(width, width > 600 ? 260 : 220, y: 0...max(1, highest * 1.08))
        var low = points.map { _ in 0.0 }
        var content = outages(plot)
        for outcome in OrderOutcome.allCases {
            var strips: [(from: Double, to: Double, low: Double, high: Double)] = []
            for (index, point) in points.enumerated() {
                let rate = Double(point.outcomes[outcome.rawValue]) / point.seconds
                strips.append((point.at - point.seconds, point.at, low[index], low[index] + rate))
                low[index] += rate
            }
            content += plot.area(strips, Self.style(outcome))
        }
        if points.contains(where: { $0.due > 0 }) {
            content += plot.line(points.map { ($0.at - $0.seconds / 2, Double($0.due) / $0.seconds) }, "meant")
        }
        return plot.svg(content + plot.axes(yUnit: "orders/s", xTicks: timeTicks(width)), label: "Orders a second over time")
    }

    static func style(_ outcome: OrderOutcome) -> String {
        switch outcome {
        case .confirmed: "confirmed"
        case .soldOut: "soldout"
        case .refused: "refused"
        case .error: "error"
        }
    }

    /// Percentiles over time.
    func latencyChart(_ width: Double) -> String {
        let points = result.points.filter { $0.orders > 0 }
        let values = points.flatMap { $0.latency.prefix(4) }.filter { $0 > 0 }
        let range = Self.decades(values)
        let plot = timePlot(width, width > 600 ? 240 : 220, y: range, .logarithmic)
        var content = outages(plot)
        for (index, style) in [(0, "p50"), (2, "p99"), (3, "p999")] {
            content += plot.line(points.map { ($0.at - $0.seconds / 2, $0.latency[index]) }, style)
        }
        return plot.svg(content + plot.axes(yUnit: "ms", xTicks: timeTicks(width)), label: "Latency over time")
    }

    /// From two thirds of the smallest to one and a half times the largest, and a factor of ten at least.
    private static func decades(_ values: [Double]) -> ClosedRange<Double> {
        let low = max(0.01, (values.min() ?? 1) / 1.5)
        return low...max(low * 10, (values.max() ?? 10) * 1.5)
    }

    /// Units left in Redis and in PostgreSQL.
    func stockChart(_ width: Double) -> String? {
        let points = result.points
        let values = points.flatMap { [$0.redisStock, $0.databaseStock].compactMap { $0 } }
        guard let highest = values.max(), let lowest = values.min() else { return nil }
        let plot = timePlot(
            width,
            width > 600 ? 220 : 200,
            y: min(0, Double(lowest))...max(1, Double(max(highest, result.audit.initial)) * 1.05)
        )
        var content = outages(plot)
        // What was on sale when it opened, where that is known.
        let first =
            result.load.confirmed > 0 && result.audit.basis == .stores && result.isNewProduct
            ? [(x: 0.0, y: Optional(Double(result.audit.initial)))] : []
        content += plot.line(first + points.map { (x: $0.at, y: $0.databaseStock.map(Double.init)) }, "database")
        content += plot.line(first + points.map { (x: $0.at, y: $0.redisStock.map(Double.init)) }, "redis")
        return plot.svg(content + plot.axes(yUnit: "units left", xTicks: timeTicks(width)), label: "Stock over time")
    }

    /// The breaker's states as a strip over the same time.
    func breakerStrip(_ width: Double) -> String? {
        let spans = breakerSpans
        guard !spans.isEmpty else { return nil }
        var plot = timePlot(width, 34, y: 0...1)
        plot.top = 4
        plot.bottom = 6
        var content = ""
        for span in spans {
            content += plot.band(
                span.from,
                span.to,
                "breaker \(span.state)",
                title: "breaker \(span.state), \(span.from.digits(1)) s to \(span.to.digits(1)) s"
            )
            if plot.px(span.to) - plot.px(span.from) > Double(span.state.count) * 8 {
                let middle = (plot.px(span.from) + plot.px(span.to)) / 2
                content += #"<text class="state" text-anchor="middle" x="\#(Plot.n(middle))" y="20">\#(span.state.htmlEscaped)</text>"#
            }
        }
        content += #"<text class="tick end" x="\#(Plot.n(plot.left - 6))" y="20">breaker</text>"#
        return plot.svg(content, label: "States of the breaker over time")
    }

    /// The breaker's states: from its transitions, or, where there were none, from what was looked at.
    var breakerSpans: [(state: String, from: Double, to: Double)] {
        let changes = result.transitions
        guard let first = changes.first?.from ?? result.points.lazy.compactMap(\.breaker).first else { return [] }
        var spans: [(state: String, from: Double, to: Double)] = []
        var (state, from) = (first, 0.0)
        for change in changes {
            if change.atSeconds > from { spans.append((state, from, min(change.atSeconds, end))) }
            (state, from) = (change.to, max(0, change.atSeconds))
        }
        if from < end { spans.append((state, from, end)) }
        return spans
    }

    /// Latency by percentile, each outcome a line; each step to the right is ten times rarer.
    func distributionChart(_ width: Double) -> String {
        let parts = OrderOutcome.allCases.map { ($0, result.load.latencies(of: $0)) }.filter { $0.1.count > 0 }
        let most = parts.map(\.1.count).max() ?? 1
        let decades = min(5.0, max(1, log10(Double(max(most, 2)))))
        let marks = [0.0, 50, 90, 99, 99.9, 99.99, 99.999].filter { Self.rarity($0) <= decades + 0.01 }
        let values = parts.flatMap { part in [part.1.milliseconds(at: 1), part.1.maximum] }.filter { $0 > 0 }
        let plot = Plot(width: width, height: width > 600 ? 260 : 230, x: 0...decades, y: Self.decades(values), yScale: .logarithmic)
        var content = ""
        for (outcome, latencies) in parts {
            let last = min(decades, log10(Double(max(latencies.count, 2))))
            let steps = 160
            let line = (0...steps).map { step -> (x: Double, y: Double?) in
                let rarity = last * Double(step) / Double(steps)
                return (rarity, latencies.milliseconds(at: 100 * (1 - pow(10, -rarity))))
            }
            content += plot.line(line, Self.style(outcome))
        }
        // On a phone the first two marks would run into each other.
        let shown = width > 600 ? marks : marks.filter { $0 != 0 }
        let ticks = shown.map { (at: Self.rarity($0), text: $0 == 0 ? "min" : "p\($0.plain)") }
        return plot.svg(content + plot.axes(yUnit: "ms", xTicks: ticks), label: "Latency by percentile")
    }

    /// 0 for the 0th percentile, 1 for the 90th, 2 for the 99th.
    private static func rarity(_ percentile: Double) -> Double { -log10(1 - percentile / 100) }
}
