/// A threshold: what a run must reach to count as a success.
///
/// Written `p99<50ms`, `p99.9.confirmed<=80ms`, `errors<0.1%`, `shed=0`, `rate>=95%`, `throughput>5000`, `oversold=0`, `generator=ok`.
public struct Requirement: Equatable, Sendable {
    /// What is measured.
    enum Metric: Equatable {
        /// A percentile, in milliseconds; of one outcome or of all.
        case percentile(Double, OrderOutcome?)
        case longest
        case mean
        /// Orders of a kind: how many, or, where the bound is a percentage, which part of the orders.
        case orders(Count)
        /// The part of the orders meant that was sent.
        case rate
        /// Orders answered a second.
        case throughput
        case books(Book)
        /// Whether nothing speaks against the harness itself.
        case generator
    }

    enum Count: String, CaseIterable { case errors, refused, soldout, confirmed, shed, stale, retries }
    enum Book: String, CaseIterable { case oversold, leaked, unmatched, lost, pending, drift }
    enum Comparison: String { case less = "<", atMost = "<=", equal = "=", atLeast = ">=", more = ">" }

    /// What kind of failure a missed threshold is: each has an exit status of its own.
    public enum Kind: Int, Sendable, CaseIterable {
        /// A latency.
        case latency
        /// Errors, refusals and other counts.
        case outcomes
        /// The rate was not held.
        case rate
        /// The audit's figures.
        case books
        /// The harness was its own bottleneck.
        case generator
    }

    /// The threshold as it was written.
    public let text: String
    let metric: Metric
    let comparison: Comparison
    /// The bound: milliseconds, a count, or a part of 1.
    let bound: Double
    let isPart: Bool

    /// Reads a list with commas between.
    /// - Throws: `PlanError` that names the part and what can be asked for.
    public static func list(_ text: String) throws(PlanError) -> [Requirement] {
        var list: [Requirement] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            list.append(try Requirement(part.filter { $0 != " " }))
        }
        return list
    }

    init(_ text: String) throws(PlanError) {
        self.text = text
        guard let sign = text.firstIndex(where: { "<>=".contains($0) }), sign > text.startIndex else {
            throw PlanError("'\(text)' compares nothing: write p99<50ms")
        }
        let behind = text[sign...].prefix { "<>=".contains($0) }
        guard let comparison = Comparison(rawValue: behind == "==" ? "=" : String(behind)) else {
            throw PlanError("'\(behind)' is no comparison: <, <=, =, >= or >")
        }
        self.comparison = comparison
        let name = String(text[..<sign])
        let value = String(text[text.index(sign, offsetBy: behind.count)...])
        metric = try Self.metric(name)
        switch metric {
        case .percentile, .longest, .mean:
            bound = try Self.milliseconds(value)
            isPart = false
        case .generator:
            guard value == "ok", comparison == .equal else { throw PlanError("write generator=ok") }
            bound = 0
            isPart = false
        default:
            isPart = value.hasSuffix("%")
            guard let number = Double(isPart ? String(value.dropLast()) : value), number.isFinite, number >= 0 else {
                throw PlanError("'\(value)' is no bound for \(name): write a number or a part such as 0.1%")
            }
            bound = isPart ? number / 100 : number
            switch metric {
            case .rate where !isPart: throw PlanError("rate is a part of what was meant, such as rate>=95%; throughput is orders a second")
            case .throughput where isPart, .books where isPart: throw PlanError("\(name) is a number, not a part")
            default: break
            }
        }
    }

    private static func metric(_ name: String) throws(PlanError) -> Metric {
        switch name {
        case "max": return .longest
        case "mean": return .mean
        case "rate": return .rate
        case "throughput": return .throughput
        case "generator": return .generator
        default: break
        }
        if let count = Count(rawValue: name) { return .orders(count) }
        if let book = Book(rawValue: name) { return .books(book) }
        let outcomes: [(String, OrderOutcome)] = [
            (".confirmed", .confirmed), (".soldout", .soldOut), (".refused", .refused), (".error", .error),
        ]
        let outcome = outcomes.first { name.hasSuffix($0.0) }
        let number = name.dropLast(outcome?.0.count ?? 0)
        if number.hasPrefix("p"), let percentile = Double(number.dropFirst()), percentile > 0, percentile < 100 {
            return .percentile(percentile, outcome?.1)
        }
        throw PlanError(
            "'\(name)' is nothing that can be required: p50 to p99.99 (p99.confirmed), max, mean, errors, refused, soldout, confirmed, shed, stale, "
                + "retries, rate, throughput, oversold, leaked, unmatched, lost, pending, drift, generator"
        )
    }

    private static func milliseconds(_ text: String) throws(PlanError) -> Double {
        if text.hasSuffix("us"), let value = Double(text.dropLast(2)), value >= 0 { return value / 1000 }
        return try Duration(span: text).inSeconds * 1000
    }

    /// The kind of failure when it is missed.
    public var kind: Kind {
        switch metric {
        case .percentile, .longest, .mean: .latency
        case .orders: .outcomes
        case .rate, .throughput: .rate
        case .books: .books
        case .generator: .generator
        }
    }
}
