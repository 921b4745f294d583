import FlashSaleKit
public import Foundation

/// Where a result goes: `Benchmarks/results`, one folder a kind of machine, and the pages that show the newest one.
///
/// Pages are changed between two marks that stand in them, `<!-- compare: NAME -->` and `<!-- /compare -->`, and nowhere else.
public struct Publication: Sendable {
    /// The repository.
    public let root: URL

    /// - Parameter root: the repository.
    public init(root: URL) { self.root = root }

    /// Writes the folder, the charts and the pages. Returns the paths that were written, from the repository.
    /// - Throws: what writing throws; `PlanError` for a page whose marks are not a pair.
    public func publish(_ result: PeerResult) throws -> [String] {
        var written: [String] = []
        func write(_ data: Data, _ path: String) throws {
            let file = root.appendingPathComponent(path)
            try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try data.write(to: file, options: .atomic)
            written.append(path)
        }
        let table = ResultTable(result)
        let folder = "Benchmarks/results/\(result.machine.kind)"
        let text = [table.lines, table.relayLines, table.generatorLines, table.cpuLines, table.lossLines, table.growthLines, table.footer]
            .filter {
                !$0.isEmpty
            }.map {
                $0.joined(separator: "\n")
            }
        try write(Data((text.joined(separator: "\n\n") + "\n").utf8), "\(folder)/table.txt")
        try write(try result.json(), "\(folder)/result.json")
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try write(try encoder.encode(result.machine) + Data("\n".utf8), "\(folder)/machine.json")
        let chart = ResultChart(result)
        for theme in ResultChart.Theme.allCases {
            try write(Data(chart.svg(theme).utf8), "\(folder)/compare-\(theme.rawValue).svg")
        }
        for page in ["README.md", "docs/compare.md", "docs/performance.md"] {
            let file = root.appendingPathComponent(page)
            guard let before = try? String(contentsOf: file, encoding: .utf8) else { continue }
            let after = try Self.filled(
                before,
                page: page,
                [
                    "chart": Self.picture(in: folder, from: page), "table": table.markdown, "peers": ResultTable.peers,
                ]
            )
            if after != before { try write(Data(after.utf8), page) }
        }
        return written
    }

    /// The chart as a page shows it, in the reader's theme.
    static func picture(in folder: String, from page: String) -> String {
        let path = page.contains("/") ? "../\(folder)" : folder
        return """
            <picture>
              <source media="(prefers-color-scheme: dark)" srcset="\(path)/compare-dark.svg">
              <img alt="StockGate beside its peers: requests a second and processor time" src="\(path)/compare-light.svg">
            </picture>

            """
    }

    /// The page with what stands between its marks replaced. Marks of a name that is not given stay as they are.
    static func filled(_ text: String, page: String, _ parts: [String: String]) throws(PlanError) -> String {
        var rest = text[...]
        var result = ""
        let (opening, closing) = ("<!-- compare: ", "<!-- /compare -->")
        while let mark = rest.range(of: opening) {
            guard let nameEnd = rest[mark.upperBound...].range(of: " -->"),
                let end = rest[nameEnd.upperBound...].range(of: closing)
            else { throw PlanError("\(page): a mark '\(opening)…' without '\(closing)'") }
            let name = String(rest[mark.upperBound..<nameEnd.lowerBound])
            let inside = rest[nameEnd.upperBound..<end.lowerBound]
            guard !inside.contains(opening) else { throw PlanError("\(page): a mark '\(opening)…' within another") }
            result += rest[..<nameEnd.upperBound]
            result += parts[name].map { "\n" + $0 } ?? String(inside)
            result += closing
            rest = rest[end.upperBound...]
        }
        return result + rest
    }
}
