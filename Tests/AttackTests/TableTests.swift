import Foundation
import Testing

@testable import AttackKit

@Suite("The framing table and its page")
struct TableTests {
    private static let page: String = {
        let repository = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        return (try? String(contentsOf: repository.appendingPathComponent("docs/http-edge.md"), encoding: .utf8)) ?? ""
    }()

    @Test func everyRowHasANumberOfItsOwn() {
        let numbers = FramingCases.all.map(\.number)
        #expect(Set(numbers).count == numbers.count)
        #expect(Set(numbers).isSuperset(of: 1...139))
        #expect(Set(FramingCases.all.map(\.name)).count == numbers.count)
    }

    /// Rows that came or changed their names since the page was written are found here; what became of them, by `make attack`.
    @Test func thePageHasEveryRow() {
        #expect(
            MarkdownTable.names(in: Self.page) == MarkdownTable.expectedNames,
            "docs/http-edge.md is stale: scripts/attack --markdown docs/http-edge.md writes it"
        )
    }

    @Test func aTableIsWrittenBetweenItsMarkers() throws {
        var table: FramingPart.Table = [:]
        for row in FramingCases.all {
            for target in Target.allCases { table[row.number, default: [:]][target] = (.refusedClosed, Effects(), [400]) }
        }
        table[5]?[.productAdmin] = (.stuck, Effects(), [200])
        let seen = MarkdownTable(table)
        let row = try #require(seen.lines.first { $0.hasPrefix("| 5 |") })
        #expect(row.contains("| refused 400, closed / refused 400, closed / **never answered** | refused 400, closed |"))
        let page = "Before.\n\n\(MarkdownTable.begin)\nWHAT WAS THERE\n\(MarkdownTable.end)\n\nBehind.\n"
        let written = try #require(seen.written(into: page))
        #expect(written.hasPrefix("Before.\n\n"))
        #expect(written.hasSuffix("\n\nBehind.\n"))
        #expect(!written.contains("WHAT WAS THERE"))
        #expect(seen.differences(from: written) == [])
        #expect(MarkdownTable.names(in: written) == MarkdownTable.expectedNames)
        #expect(seen.differences(from: written.replacing("**never answered**", with: "refused 400, closed")).count == 1)
        #expect(seen.written(into: "no markers") == nil)
    }

    @Test func requestsOfARunCannotBeTakenForEachOther() {
        let requests = Requests(run: "t", goods: Goods(hot: 7, hotCode: "C", plain: 8), base: 1_000)
        var effects: Set<String> = []
        for row in FramingCases.all {
            for target in Target.allCases {
                for role in 0..<2 {
                    let draft = requests.changing(target, (row.number * 16 + target.rawValue) * 4 + role, port: 80)
                    #expect(draft.effect.map { effects.insert($0).inserted } == true)
                    #expect(draft.text.contains("Content-Length: \(draft.size)\r\n"))
                }
            }
        }
    }

    @Test func violationsOfOneKindAreOneLine() {
        var report = AttackReport()
        var part = PartReport(name: "framing")
        for place in ["product hot", "product router", "product hot"] {
            part.violations.append(Violation(part: "framing", subject: "104 Upgrade: h2c", place: place, rule: .stuck, text: "nothing"))
        }
        part.violations.append(Violation(part: "framing", subject: "104 Upgrade: h2c", place: "order hot", rule: .serverError, text: "500"))
        report.parts = [part]
        #expect(
            report.findings() == [
                "framing: 104 Upgrade: h2c: STUCK: nothing [product hot, product router]",
                "framing: 104 Upgrade: h2c: server error: 500 [order hot]",
            ]
        )
        #expect(report.findings(limit: 1).last == "… and 1 more kinds (--all)")
        #expect(report.byRule.map(\.count) == [1, 3])
    }

    @Test func aForbiddenPathHasManyNames() {
        let disguises = AccessPart.disguises(prefix: "/product-service", path: "/products/1/stock/ledger", host: "127.0.0.1:8000").map(
            \.target
        )
        #expect(Set(disguises).count == disguises.count)
        #expect(disguises[0] == "/product-service/products/1/stock/ledger")
        for wanted in [
            "/product-service/%70roducts/%31/%73tock/%6cedger", "/product-service/products/1/stock/%256cedger",
            "/product-service//products/1/stock/ledger",
            "/product-service/livez/%2e%2e/products/1/stock/ledger", "/order-service/../product-service/products/1/stock/ledger",
            "/product-service/products%2F1%2Fstock%2Fledger", "/product-service/products/1/stock/ledger;a=b",
        ] { #expect(disguises.contains(wanted), "\(wanted)") }
    }
}
