/// How a sale stands, drawn in lines of text: from 40 columns on, and more of it where there is more room. A pure function of the view and the terminal.
struct Panel {
    /// What is drawn.
    struct View {
        var title = ""
        var elapsed = 0.0
        /// Until the sale is expected to end, in seconds; nil if that is not known.
        var left: Double?
        /// The part of the orders (or of the time) that is done, and below it that of the units; nil if there is no whole.
        var progress: Double?
        var sold: Double?
        /// Orders that ended, by `OrderOutcome.rawValue`, and arrivals turned away.
        var outcomes = [0, 0, 0, 0]
        var shed = 0
        var stale = 0
        var inFlight = 0
        /// The points so far; the last ones are drawn.
        var points: [SalePoint] = []
        var breaker: String?
        var redisIsUp: Bool?
        var redisStock: Int64?
        var databaseStock: Int64?
        var units = 0
        var faults: [FaultSpan] = []
        /// What holds the buyers back, in words.
        var held: String?
        var isAsync = false
    }

    enum Colour: String {
        case plain = "0"
        case bold = "1"
        case faint = "2"
        case red = "31"
        case green = "32"
        case yellow = "33"
    }

    let view: View
    let terminal: Console.Terminal

    private var width: Int { max(20, min(terminal.columns - 1, 160)) }

    /// The lines, at most one less than the terminal has, none longer than it is wide.
    var lines: [String] {
        var lines: [(importance: Int, line: Line)] = [
            (1, heading), (3, progress), (0, rate), (4, rateMarks), (0, outcomes), (0, latency), (2, gate), (2, stock),
        ]
        if let fault = faults { lines.append((1, fault)) }
        if let held = view.held { lines.append((5, Line().add("held back", width: 11, .faint).add(held))) }
        lines.insert((6, Line().add(String(repeating: terminal.hasBlocks ? "─" : "-", count: width), .faint)), at: 0)
        // What matters least goes first where there is too little room.
        while lines.count > max(3, terminal.rows - 1), let least = lines.map(\.importance).max() {
            guard let index = lines.lastIndex(where: { $0.importance == least }) else { break }
            lines.remove(at: index)
        }
        return lines.map { $0.line.rendered(width: width, hasColours: terminal.hasColours) }
    }

    // MARK: The lines

    private var heading: Line {
        let time = "\(Sale.decimal(view.elapsed)) s" + (view.left.map { ", about \(Int($0.rounded(.up))) s left" } ?? "")
        return Line().add(view.title, .bold).fill(before: time.count, width: width).add(time)
    }

    private var progress: Line {
        var line = Line().add("progress", width: 11, .faint)
        guard let part = view.progress ?? view.sold else { return line.add("until it is stopped") }
        var text = "\(Int(part * 100)) %"
        if let sold = view.sold { text += ", \(Int(sold * 100)) % of the units sold" }
        line = line.add(bar(part, width: max(8, width - 11 - text.count - 2)), .green)
        return line.add("  " + text)
    }

    private var rate: Line {
        let point = view.points.last
        let rate = point.map { Int((Double($0.orders) / max($0.seconds, 0.001)).rounded()).grouped } ?? "-"
        return Line().add("orders/s", width: 11, .faint).add(rate, width: 11, .bold).add(sparkline)
    }

    private var sparkPoints: ArraySlice<SalePoint> { view.points.suffix(max(1, width - 22)) }

    private var sparkline: String {
        let rates = sparkPoints.map { Double($0.orders) / max($0.seconds, 0.001) }
        let highest = max(rates.max() ?? 1, 1)
        let steps: [Character] = terminal.hasBlocks ? Array("▁▂▃▄▅▆▇█") : Array("_.-=+*#@")
        return String(rates.map { steps[min(7, max(0, Int($0 / highest * 7.99)))] })
    }

    /// Below the sparkline: where a fault was under way.
    private var rateMarks: Line {
        let mark: Character = terminal.hasBlocks ? "▔" : "!"
        let marks = sparkPoints.map { point -> Character in
            view.faults.contains { $0.from <= point.at && ($0.to ?? .infinity) >= point.at - point.seconds } ? mark : " "
        }
        return Line().add("", width: 22).add(String(marks), .red)
    }

    private var outcomes: Line {
        let names = [view.isAsync ? "accepted" : "confirmed", "sold out", "refused", "errors"]
        var line = Line().add("answered", width: 11, .faint)
        for (index, name) in names.enumerated() where index < 2 || view.outcomes[index] > 0 || index == 3 {
            let colour: Colour = index == 3 && view.outcomes[3] > 0 ? .red : index == 0 ? .green : .plain
            line = line.add("\(name) \(view.outcomes[index].grouped)  ", colour)
        }
        if view.shed > 0 { line = line.add("shed \(view.shed.grouped)  ", .yellow) }
        if view.stale > 0 { line = line.add("stale \(view.stale.grouped)  ", .yellow) }
        return line.add("in flight \(view.inFlight.grouped)", .faint)
    }

    private var latency: Line {
        var line = Line().add("latency ms", width: 11, .faint)
        guard let point = view.points.last(where: { $0.orders > 0 }) else { return line.add("-") }
        for (name, value) in zip(["p50", "p90", "p99", "p99.9", "max"], point.latency) {
            line = line.add("\(name) \(Sale.decimal(value))  ")
        }
        return line
    }

    private var gate: Line {
        let state = view.breaker ?? "not known"
        let colour: Colour = state == "CLOSED" ? .green : state == "OPEN" ? .red : .yellow
        var line = Line().add("breaker", width: 11, .faint).add(state, width: 11, colour)
        if let isUp = view.redisIsUp { line = line.add("Redis \(isUp ? "answers" : "does not answer")", isUp ? .plain : .red) }
        return line
    }

    private var stock: Line {
        func count(_ value: Int64?) -> String { value.map { Int(clamping: $0).grouped } ?? "-" }
        var line = Line().add("stock", width: 11, .faint)
        line = line.add("Redis \(count(view.redisStock))  PostgreSQL \(count(view.databaseStock))  ")
        if let stock = view.databaseStock, view.units > 0, width >= 70 {
            line = line.add(bar(Double(stock) / Double(view.units), width: min(30, width - line.length - 1)), .yellow)
        }
        return line
    }

    private var faults: Line? {
        let now = view.faults.filter { $0.to == nil && $0.from <= view.elapsed }
        guard !now.isEmpty else { return nil }
        let words = now.map { "\($0.words) \(Sale.decimal(max(0, view.elapsed - $0.from))) s ago" }
        return Line().add("fault", width: 11, .faint).add(words.joined(separator: ", "), .red)
    }

    private func bar(_ part: Double, width: Int) -> String {
        let full = Int((min(max(part, 0), 1) * Double(width)).rounded(.down))
        let (on, off): (String, String) = terminal.hasBlocks ? ("█", "░") : ("#", ".")
        return String(repeating: on, count: full) + String(repeating: off, count: max(0, width - full))
    }

    /// A line of coloured pieces, whose length does not count the colours.
    struct Line {
        private var pieces: [(text: String, colour: Colour)] = []
        var length: Int { pieces.reduce(0) { $0 + $1.text.count } }

        func add(_ text: String, width: Int = 0, _ colour: Colour = .plain) -> Line {
            var line = self
            line.pieces.append((text + String(repeating: " ", count: max(0, width - text.count)), colour))
            return line
        }

        func add(_ text: String, _ colour: Colour) -> Line { add(text, width: 0, colour) }

        /// Spaces, so that so many characters end at the right edge.
        func fill(before count: Int, width: Int) -> Line {
            add(String(repeating: " ", count: max(1, width - length - count)))
        }

        func rendered(width: Int, hasColours: Bool) -> String {
            var text = ""
            var left = width
            for piece in pieces where left > 0 {
                let shown = String(piece.text.prefix(left))
                left -= shown.count
                text += hasColours && piece.colour != .plain ? "\u{1B}[\(piece.colour.rawValue)m\(shown)\u{1B}[0m" : shown
            }
            return text
        }
    }
}
