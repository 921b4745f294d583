import FlashSaleKit

/// The result as text: for a terminal, and as a table of a page.
public struct ResultTable: Sendable {
    private let result: PeerResult

    /// - Parameter result: what it shows.
    public init(_ result: PeerResult) { self.result = result }

    private static let head = [
        "work", "c", "peer", "peer/s", "StockGate/s", "p99 ms", "ratio", "goal", "reached", "the peer does not promise",
    ]

    private func cells(_ line: PeerResult.Line) -> [String] {
        let isRate = line.measure == .rate
        let value = { (value: Double) in isRate ? value.digits(0) : "\(value.digits(1)) us" }
        return [
            line.title, String(line.clients), line.peer.rawValue, value(line.peerValue), value(line.value),
            // A delay says nothing of processor time.
            isRate ? line.p99.digits(1) : "-",
            "\(line.ratio.digits(2)) x", line.goal.map { "\(isRate ? "" : "<= ")\($0.digits(2).trimmed) x" } ?? "-",
            line.isReached.map { $0 ? "yes" : "NO" } ?? "-", line.lacks,
        ]
    }

    /// The table for a terminal: words to the left, numbers to the right.
    public var lines: [String] {
        Self.aligned([Self.head] + result.lines.map(cells), left: [0, 2, 9])
    }

    /// The relay's line; empty where it was not measured.
    public var relayLines: [String] {
        guard let relay = result.relay else { return [] }
        return [
            "relay delay, outbox to confirm, at \(relay.rate.digits(0)) accepted orders/s (sustained: \(relay.fullRate.digits(0))/s): p50 at most "
                + "\(relay.p50.digits(1).trimmed) ms, p99 at most \(relay.p99.digits(1).trimmed) ms; goal: p99 under "
                + "\(PeerResult.Relay.goal.digits(0)) ms at 40 % or more; reached: \(relay.isReached ? "yes" : "NO")"
        ]
    }

    /// The load generator's line; empty where it was not measured.
    public var generatorLines: [String] { result.generator?.line.map { [$0] } ?? [] }

    /// What a request costs with many products and many servers; empty where it was not measured.
    public var growthLines: [String] {
        result.growth.map { Self.aligned([GrowthResult.head] + $0.cells, left: [0, 2]) } ?? []
    }

    /// Processor time, process by process.
    public var cpuLines: [String] {
        let head = ["work", "side", "c"] + Group.servers + ["servers", Group.load, Group.other]
        let rows = result.cpu.map { line in
            [line.work.rawValue, line.side.rawValue, String(line.clients)] + Group.servers.map { (line.byGroup[$0] ?? 0).digits(1) }
                + [line.servers.digits(1), (line.byGroup[Group.load] ?? 0).digits(1), (line.byGroup[Group.other] ?? 0).digits(1)]
        }
        return Self.aligned([head] + rows, left: [0, 1])
    }

    private static let lossHead = [
        "side", "killed", "told success", "no clear answer", "units missing", "units sold twice", "restart by hand",
    ]

    private var lossCells: [[String]] {
        result.losses.map { loss in
            [loss.side.rawValue, loss.killed.rawValue]
                + [loss.told, loss.unknown, loss.missing, loss.soldTwice].map { Int(clamping: $0).grouped } + [
                    loss.neededRestart ? "yes" : "no"
                ]
        }
    }

    /// What each lost when something was killed under load; empty where nothing was.
    public var lossLines: [String] {
        result.losses.isEmpty ? [] : Self.aligned([Self.lossHead] + lossCells, left: [0, 1])
    }

    /// Machine, settings and doubts.
    public var footer: [String] {
        let settings = result.settings
        return [
            "\(result.machine.line); other work during the run \(result.otherWork.digits(1)) % of the machine",
            "medians of \(settings.rounds) rounds of \(settings.secondsEach.digits(1).trimmed) s; StockGate: \(settings.configuration)",
        ] + result.missing.map { "not measured: \($0)" } + result.doubts.map { "caution: \($0)" }
    }

    /// The page's part: both tables, the machine, the peers.
    public var markdown: String {
        func row(_ cells: [String]) -> String { "| " + cells.map { $0.replacing("|", with: "\\|") }.joined(separator: " | ") + " |" }
        func table(_ head: [String], _ rows: [[String]], numbers: Set<Int>) -> [String] {
            [row(head), "|" + head.indices.map { numbers.contains($0) ? "---:|" : "---|" }.joined()] + rows.map(row)
        }
        var lines = table(Self.head, result.lines.map(cells), numbers: [1, 3, 4, 5, 6, 7])
        for line in relayLines + generatorLines { lines += ["", line.prefix(1).uppercased() + line.dropFirst() + "."] }
        lines += [
            "", "Processor time of one request in microseconds, process by process, all rounds together; `servers` is their sum:", "",
        ]
        let shown = result.cpu.filter { $0.clients != 32 || $0.side.isPgbench }
        lines += table(
            ["work", "side", "c"] + Group.servers + ["servers"],
            shown.map { line in
                [line.work.rawValue, line.side.rawValue, String(line.clients)] + Group.servers.map { (line.byGroup[$0] ?? 0).digits(1) }
                    + [line.servers.digits(1)]
            },
            numbers: Set(2..<Group.servers.count + 4)
        )
        if !result.losses.isEmpty {
            lines += [
                "", "What each lost when something was killed in the middle of a sale of one product and started again, in units:", "",
            ]
            lines += table(Self.lossHead, lossCells, numbers: [2, 3, 4, 5])
        }
        if let growth = result.growth {
            lines += [
                "",
                "What a request costs with more gated products, and with more servers on the same processors (128 connections; processor time of all servers):",
                "",
            ]
            lines += table(GrowthResult.head, growth.cells, numbers: [1, 3, 4, 5, 6])
        }
        lines += [""] + footer.map { "- " + $0 }
        return lines.joined(separator: "\n") + "\n"
    }

    /// What every peer is and does not promise.
    public static var peers: String {
        let rows = Side.allCases.map { "| \($0.rawValue) | \($0.description) | \($0.doesNotPromise) |" }
        return (["| side | is | does not promise |", "|---|---|---|"] + rows).joined(separator: "\n") + "\n"
    }

    static func aligned(_ rows: [[String]], left: Set<Int>) -> [String] {
        guard let first = rows.first else { return [] }
        let widths = first.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            var line = zip(row, widths).enumerated().map { index, cell in
                let space = String(repeating: " ", count: cell.1 - cell.0.count)
                return left.contains(index) ? cell.0 + space : space + cell.0
            }.joined(separator: "  ")
            while line.hasSuffix(" ") { line.removeLast() }
            return line
        }
    }
}

extension Side {
    /// Whether the side is pgbench, which is no server.
    var isPgbench: Bool { self == .pgbenchRow || self == .pgbenchFunction || self == .pgbenchUnits }
}

extension String {
    /// Without zeros at the end of a fraction: `1.25`, but `20`.
    var trimmed: String {
        guard contains(".") else { return self }
        var text = self
        while text.hasSuffix("0") { text.removeLast() }
        if text.hasSuffix(".") { text.removeLast() }
        return text
    }
}
