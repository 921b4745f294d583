/// What came of an attack.
public struct AttackReport: Sendable {
    /// Its parts, in the order they were done.
    public internal(set) var parts: [PartReport] = []
    /// The framing table, if all of it was done.
    public internal(set) var table: MarkdownTable?

    /// What must not have happened.
    public var violations: [Violation] { parts.flatMap(\.violations) }

    /// The summary: a line a part, then its figures.
    public var summary: [String] {
        var lines = [Self.row("part", ["cases", "answered", "refused", "closed", "violations", "seconds"])]
        for part in parts {
            let seconds = Double(part.took.components.seconds) + Double(part.took.components.attoseconds) * 1e-18
            let figures = [part.cases, part.answered, part.refused, part.closed, part.violations.count].map(String.init)
            lines.append(Self.row(part.name, figures + ["\((seconds * 10).rounded() / 10)"]))
        }
        for part in parts { lines += part.notes.map { "  \($0)" } }
        return lines
    }

    /// The violations, those of one case and rule in one line with every place it was seen at.
    /// - Parameter limit: lines at most; the last then says how many are left out
    public func findings(limit: Int = .max) -> [String] {
        var order: [String] = []
        var groups: [String: (first: Violation, places: [String])] = [:]
        for violation in violations {
            let key = "\(violation.part)\n\(violation.subject)\n\(violation.rule.rawValue)"
            if groups[key] == nil { order.append(key) }
            groups[key, default: (violation, [])].places.append(violation.place)
        }
        var lines = order.prefix(limit).compactMap { key in
            groups[key].map { group in
                let places = group.places.reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
                return
                    "\(group.first.part): \(group.first.subject): \(group.first.rule.rawValue): \(group.first.text) [\(places.joined(separator: ", "))]"
            }
        }
        if order.count > limit { lines.append("… and \(order.count - limit) more kinds (--all)") }
        return lines
    }

    /// How often each rule was broken.
    public var byRule: [(rule: Violation.Rule, count: Int)] {
        Violation.Rule.allCases.map { rule in (rule, violations.filter { $0.rule == rule }.count) }.filter { $0.count > 0 }
    }

    private static func row(_ name: String, _ figures: [String]) -> String {
        name + String(repeating: " ", count: max(1, 34 - name.count))
            + figures.map { String(repeating: " ", count: max(1, 11 - $0.count)) + $0 }.joined()
    }
}
