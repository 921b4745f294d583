/// The framing table as it stands in the documentation, between two markers.
public struct MarkdownTable: Sendable, Equatable {
    static let begin = "<!-- attack: begin of the table -->"
    static let end = "<!-- attack: end of the table -->"

    private let rows: [String]

    init(_ table: FramingPart.Table) {
        rows = FramingCases.all.map { row in
            let seen = table[row.number] ?? [:]
            let cells = Target.columns.map { column in
                Self.cell(
                    column.targets.map { target in seen[target].map { Self.words(row, target, $0.outcome, $0.statuses) } ?? "no connection"
                    }
                )
            }
            return "| \(row.number) | \(Self.escaped(row.name)) | " + cells.joined(separator: " | ") + " |"
        }
    }

    /// The lines between the markers.
    public var lines: [String] {
        let titles = ["#", "bytes"] + Target.columns.map(\.title)
        return ["| " + titles.joined(separator: " | ") + " |", "|" + String(repeating: "---|", count: titles.count)] + rows
    }

    /// A page with its table replaced by this one; nil if it has no markers.
    public func written(into page: String) -> String? {
        guard let (before, after) = Self.around(page) else { return nil }
        return before + Self.begin + "\n\n" + lines.joined(separator: "\n") + "\n\n" + Self.end + after
    }

    /// Lines of this table that a page does not have; all if it has no table.
    public func differences(from page: String) -> [String] {
        let known = Set(page.split(separator: "\n").map(String.init))
        return lines.filter { !known.contains($0) }
    }

    /// Numbers and names of the rows that a page has.
    static func names(in page: String) -> [String] {
        page.split(separator: "\n").compactMap { line in
            let parts = line.split(separator: "|").map { $0.trimmingPrefix(" ") }
            guard line.hasPrefix("| "), parts.count > 2, let number = Int(parts[0].filter { $0 != " " }) else { return nil }
            return "\(number) \(parts[1].reversed().drop { $0 == " " }.reversed().map(String.init).joined())"
        }
    }

    /// Numbers and names of the rows that a page should have.
    static var expectedNames: [String] { FramingCases.all.map { "\($0.number) \(escaped($0.name))" } }

    private static func around(_ page: String) -> (before: String, after: String)? {
        guard let begin = page.firstRange(of: begin), let end = page.firstRange(of: end), begin.upperBound <= end.lowerBound else {
            return nil
        }
        return (String(page[..<begin.lowerBound]), String(page[end.upperBound...]))
    }

    /// A cell's text: one word where it is the same for all of the column's targets.
    private static func cell(_ words: [String]) -> String {
        Set(words).count == 1 ? words[0] : words.joined(separator: " / ")
    }

    private static func words(_ row: FramingCase, _ target: Target, _ outcome: Outcome, _ statuses: [Int]) -> String {
        let refusal = statuses.first { $0 >= 300 }.map { " \($0)" } ?? ""
        return switch outcome {
        case .answeredAlone: "answered"
        case .answered, .answeredClosed, .closedSilently, .plainBody, .waited: outcome.rawValue
        case .answeredRefused: "answered, then refused\(refusal)"
        case .refusedClosed: "refused\(refusal), closed"
        case .refusedKept, .refusedAlone: "refused\(refusal)"
        case .refusedTwice: "refused" + statuses.map { " \($0)" }.joined()
        case .stuck: "**never answered**"
        case .garbled: "**garbled**"
        }
    }

    private static func escaped(_ text: String) -> String {
        text.replacing("|", with: "\\|").replacing("<", with: "&lt;").replacing("*", with: "\\*").replacing("_", with: "\\_")
    }
}
