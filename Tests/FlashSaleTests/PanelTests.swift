import Foundation
import Synchronization
import Testing

@testable import FlashSaleKit

@Suite("The terminal view")
struct PanelTests {
    /// Made once: thirty histograms take their time.
    private static let view: Panel.View = {
        var view = Panel.View()
        view.title = "Flash sale of product 7"
        view.elapsed = 30.5
        view.left = 12.2
        view.progress = 0.6
        view.sold = 0.75
        view.outcomes = [8_000, 12_345, 0, 2]
        view.shed = 5
        view.breaker = "OPEN"
        view.redisIsUp = false
        view.redisStock = nil
        view.databaseStock = 5_000
        view.units = 20_000
        view.held = "to 900 orders/s"
        view.faults = [
            FaultSpan(server: "redis", what: "killed", from: 25, to: nil), FaultSpan(server: "order", what: "paused", from: 3, to: 5),
        ]
        for second in 1...30 {
            var look = LoadGenerator.Look(interval: IntervalFigures(), totals: LoadTotals(), elapsed: .seconds(second), limit: .ownPace)
            look.interval.outcomes = [second * 10, 0, 0, 0]
            for _ in 0..<second { look.interval.latencies.record(microseconds: 12_000) }
            view.points.append(SalePoint(look, seconds: 1, log: SaleLog()))
        }
        return view
    }()

    private func lines(_ columns: Int, _ rows: Int, colours: Bool = false, blocks: Bool = true) -> [String] {
        let terminal = Console.Terminal(columns: columns, rows: rows, hasColours: colours, hasBlocks: blocks)
        return Panel(view: Self.view, terminal: terminal).lines
    }

    private func plain(_ line: String) -> String { line.replacing(/\u{1B}\[[0-9]+m/, with: "") }

    @Test(arguments: [(80, 24), (40, 24), (200, 60), (20, 5), (80, 8), (1, 1)])
    func fits(columns: Int, rows: Int) {
        for colours in [false, true] {
            let lines = lines(columns, rows, colours: colours)
            #expect(lines.count <= max(3, rows - 1))
            for line in lines { #expect(plain(line).count <= max(20, columns - 1), "\(line)") }
            #expect(lines.map(plain) == self.lines(columns, rows), "colours change nothing else")
        }
    }

    @Test func tellsEverythingInEightyColumns() {
        let text = lines(80, 24).joined(separator: "\n")
        for part in [
            "Flash sale of product 7", "30.5 s, about 13 s left", "60 %, 75 % of the units sold", "300 ",
            "confirmed 8,000  sold out 12,345  errors 2  shed 5",
            "p50 12.0  p90 12.0  p99 12.0  p99.9 12.0  max 12.0", "OPEN", "Redis does not answer", "Redis -  PostgreSQL 5,000",
            "redis was killed 5.5 s ago",
            "held back  to 900 orders/s",
        ] { #expect(text.contains(part), "\(part) in\n\(text)") }
        #expect(!text.contains("order was paused"), "what is over is a mark, not a line")
    }

    @Test func faultsAreMarkedBelowTheRate() throws {
        let lines = lines(80, 24)
        let rate = try #require(lines.firstIndex { $0.hasPrefix("orders/s") })
        let spark = Array(lines[rate].dropFirst(22))
        let marks = Array(lines[rate + 1].dropFirst(22))
        #expect(spark.count == 30 && spark.first == "▁" && spark.last == "█")
        let marked = marks.indices.filter { marks[$0] == "▔" }
        // Points are a second each, the first ends at 1 s: seconds 3 to 6, and from 25 on.
        #expect(marked == [2, 3, 4, 5, 24, 25, 26, 27, 28, 29])
    }

    @Test func growsWithTheTerminal() {
        #expect(lines(160, 50).contains { $0.contains("████") && $0.contains("60 %") && $0.count > 120 })
        let small = lines(80, 6)
        #expect(
            small.count == 5 && small.contains { $0.hasPrefix("orders/s") } && small.contains { $0.hasPrefix("latency") }
                && !small.contains { $0.hasPrefix("held") }
        )
    }

    @Test func asciiAloneWhereThereIsNothingElse() {
        for line in lines(80, 24, blocks: false) { #expect(line.utf8.allSatisfy { $0 < 0x7F }, "\(line)") }
    }

    @Test func coloursAndBlocksFollowTheEnvironment() {
        func settings(_ environment: [String: String]) -> Console.Terminal { Console.settings(environment, columns: 80, rows: 24) }
        #expect(settings([:]).hasColours && !settings([:]).hasBlocks)
        #expect(!settings(["NO_COLOR": "1"]).hasColours && settings(["NO_COLOR": ""]).hasColours)
        #expect(settings(["LANG": "en_US.UTF-8"]).hasBlocks && settings(["LC_ALL": "C.utf8", "LANG": "C"]).hasBlocks)
        #expect(!settings(["LC_ALL": "C", "LANG": "en_US.UTF-8"]).hasBlocks)
        #expect(Console.terminal(STDIN_FILENO, ["TERM": "dumb"]) == nil)
    }

    @Test func linesStayAndThePanelIsDrawnBelowThem() {
        let output = Mutex("")
        func screen(_ body: (Console) -> Void, terminal: Bool = true, quiet: Bool = false) -> String {
            output.withLock { $0 = "" }
            body(Console(isTerminal: terminal, isQuiet: quiet) { text in output.withLock { $0 += text } })
            return output.withLock { $0 }
        }
        let drawn = screen { console in
            console.line("one")
            console.draw(["a", "b"])
            console.draw(["c"])
            console.story("two")
            console.line("three")
        }
        #expect(drawn == "one\na\nb\n\u{1B}[2A\r\u{1B}[Jc\n\u{1B}[1A\r\u{1B}[Jtwo\nthree\n")
        let logged = screen(
            { console in console.story("two") },
            terminal: false
        )
        #expect(logged == "two\n")
        let quiet = screen(
            { console in
                console.story("two")
                console.draw(["c"])
                console.line("one")
            },
            quiet: true
        )
        #expect(quiet == "one\n")
    }
}
