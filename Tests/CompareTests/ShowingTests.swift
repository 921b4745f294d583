import FlashSaleKit
import Foundation
import Testing

@testable import CompareKit

@Suite("How the result is shown")
struct ShowingTests {
    private let table = ResultTable(Made.usual)

    @Test func theTablesColumnsStandUnderEachOther() throws {
        let lines = table.lines
        let head = try #require(lines.first)
        #expect(head.hasPrefix("work "))
        let row = try #require(lines.first { $0.contains("whole order, confirmed") })
        for cell in ["128", "gobatch", "10000", "11000", "11.0", "1.10 x", "1 x", "yes", Side.gobatch.lacks] {
            #expect(row.contains(cell), "\(cell)")
        }
        // Numbers end where their heading ends.
        let end = try #require(head.range(of: "StockGate/s")).upperBound.utf16Offset(in: head)
        #expect(row.utf8.prefix(end).suffix(5).elementsEqual("11000".utf8))
    }

    @Test func processorTimeHasAGoalFromAbove() throws {
        let row = try #require(table.lines.first { $0.contains("whole order, CPU") })
        #expect(row.contains("<= 1 x"))
        #expect(row.contains(" us"))
    }

    @Test func theCPUTableHasEveryProcess() throws {
        let lines = table.cpuLines
        #expect(lines[0].split(separator: " ").map(String.init) == ["work", "side", "c"] + Group.servers + ["servers", "load", "other"])
        let row = try #require(lines.first { $0.hasPrefix("order") && $0.contains("gobatch") })
        #expect(row.contains("47.0") && row.contains("131.0"))
    }

    @Test func aGoalIsShownWithoutZeros() {
        #expect("1.25".trimmed == "1.25")
        #expect("1.40".trimmed == "1.4")
        #expect("20.00".trimmed == "20")
        #expect("100".trimmed == "100")
    }

    @Test func thePagesTable() {
        let lines = table.markdown.split(separator: "\n", omittingEmptySubsequences: false)
        let columns = lines[0].filter { $0 == "|" }.count
        #expect(lines[1].filter { $0 == "|" }.count == columns)
        #expect(lines[2].filter { $0 == "|" }.count == columns)
        #expect(table.markdown.contains("- 2 cores (Test & Sons)"))
        for side in Side.allCases { #expect(ResultTable.peers.contains("| \(side.rawValue) |")) }
    }

    @Test func lossesAreATableOfTheirOwn() throws {
        #expect(table.lossLines.isEmpty)
        var result = Made.usual
        result.losses = [Made.loss]
        let lines = ResultTable(result).lossLines
        #expect(lines.count == 2)
        let words = lines[1].split(separator: " ").map(String.init)
        #expect(words == ["gobatch", "Redis", "1,000", "32", "3,990", "0", "yes"])
        #expect(ResultTable(result).markdown.contains("| gobatch | Redis | 1,000 | 32 | 3,990 | 0 | yes |"))
    }

    @Test func theFooterSaysWhatSpeaksAgainstIt() {
        #expect(!table.footer.contains { $0.hasPrefix("caution") })
        #expect(ResultTable(Made.result([], rounds: 1, seconds: 1)).footer.filter { $0.hasPrefix("caution") }.count == 2)
    }

    @Test func aBarIsAsLongAsItsValue() throws {
        let svg = ResultChart(Made.result([Made.sample(.soldOut, .gobatch, 20_000), Made.sample(.soldOut, .stockGate, 40_000)])).svg(.light)
        let widths = svg.split(separator: "\n").filter { $0.hasPrefix("<rect x") }.compactMap { line in
            line.split(separator: "\"").indices.compactMap { index in
                let parts = line.split(separator: "\"")
                return parts[index].hasSuffix(" width=") ? Double(parts[index + 1]) : nil
            }.first
        }
        #expect(widths.count == 2)
        #expect(widths == [560, 280])
        #expect(svg.contains(">40,000/s<"))
    }

    @Test func aStackedBarHasAPartAProcess() {
        let svg = ResultChart(Made.usual).svg(.dark)
        #expect(svg.contains(">rabbitmq<"))
        #expect(svg.contains(ResultChart.Theme.dark.ours))
        #expect(!svg.contains(ResultChart.Theme.light.background))
        // What is in the names of machines is text, not markup.
        #expect(svg.contains("Test &amp; Sons"))
        #expect(svg.hasPrefix("<svg ") && svg.hasSuffix("</svg>\n"))
        #expect(svg.components(separatedBy: "<text").count == svg.components(separatedBy: "</text>").count)
    }

    @Test func aChartOfNothingIsStillAnImage() {
        #expect(ResultChart(Made.result([])).svg(.light).hasSuffix("</svg>\n"))
    }
}

@Suite("Publication")
struct PublicationTests {
    @Test func betweenItsMarksThePageIsReplaced() throws {
        let page = "a\n<!-- compare: table -->\nold\n<!-- /compare -->\nb <!-- compare: other -->keep<!-- /compare --> c"
        let filled = try Publication.filled(page, page: "p", ["table": "new\n"])
        #expect(filled == "a\n<!-- compare: table -->\nnew\n<!-- /compare -->\nb <!-- compare: other -->keep<!-- /compare --> c")
        #expect(try Publication.filled(filled, page: "p", ["table": "new\n"]) == filled)
        #expect(try Publication.filled("no marks", page: "p", ["table": "x"]) == "no marks")
    }

    @Test func marksThatAreNoPair() {
        for page in ["<!-- compare: a -->", "<!-- compare: a", "<!-- compare: a --> <!-- compare: b --> <!-- /compare -->"] {
            #expect(throws: PlanError.self) { try Publication.filled(page, page: "p", [:]) }
        }
    }

    @Test func thePageNamesTheSidesAsTheProgramDoes() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let page = try String(contentsOf: root.appendingPathComponent("docs/compare.md"), encoding: .utf8)
        #expect(page.contains("<!-- compare: peers -->"))
        #expect(try Publication.filled(page, page: "docs/compare.md", ["peers": ResultTable.peers]) == page)
    }

    @Test func theFolderTheChartsAndThePages() throws {
        let root = FileManager.default.temporaryDirectory.appendingPathComponent("publication-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: root.appendingPathComponent("docs"), withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: root) }
        let page = "x\n<!-- compare: chart -->\n<!-- /compare -->\n<!-- compare: table -->\n<!-- /compare -->\n"
        for name in ["README.md", "docs/compare.md"] {
            try page.write(to: root.appendingPathComponent(name), atomically: true, encoding: .utf8)
        }
        let written = try Publication(root: root).publish(Made.usual)
        let folder = "Benchmarks/results/test-sons-2-cores"
        #expect(
            written == [
                "\(folder)/table.txt", "\(folder)/result.json", "\(folder)/machine.json", "\(folder)/compare-light.svg",
                "\(folder)/compare-dark.svg", "README.md", "docs/compare.md",
            ]
        )
        func read(_ path: String) throws -> String { try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8) }
        #expect(try read("README.md").contains("srcset=\"\(folder)/compare-dark.svg\""))
        #expect(try read("docs/compare.md").contains("src=\"../\(folder)/compare-light.svg\""))
        #expect(try read("docs/compare.md").contains("| whole order, confirmed |"))
        #expect(try PeerResult.read(Data(contentsOf: root.appendingPathComponent("\(folder)/result.json"))) == Made.usual)
        // A second run of the same result changes no page.
        #expect(try Publication(root: root).publish(Made.usual).count == 5)
    }
}
