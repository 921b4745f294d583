import FlashSaleKit

/// What a run's answers must have been: a wrong answer has no speed.
struct Expectation: Sendable {
    /// Statuses that may come.
    let statuses: Set<Int>

    /// Every answer is this.
    static func every(_ status: Int) -> Expectation { Expectation(statuses: [status]) }

    /// Why the run cannot be counted; nil if it can.
    func problem(_ figures: ClosedLoop.Figures) -> String? {
        if figures.broken > 0 {
            return "\(figures.broken) connections failed or timed out, the first one: \(figures.firstFailure ?? "unknown")"
        }
        if figures.inTime == 0 { return "no request was answered" }
        let wrong = figures.answered.filter { !statuses.contains($0.key) }
        guard wrong.isEmpty else {
            let words = figures.answered.sorted { $0.key < $1.key }.map { "\($0.value) x \($0.key)" }.joined(separator: ", ")
            return "expected \(statuses.sorted().map(String.init).joined(separator: " or ")), got \(words)"
        }
        return nil
    }
}
