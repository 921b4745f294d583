/// What pgbench says at the end of a run.
struct PgbenchReport: Equatable, Sendable {
    var transactions: Int
    /// Without the time for connecting.
    var perSecond: Double
    /// Milliseconds.
    var averageLatency: Double
    var failed: Int

    /// Reads its output; nil when a figure is missing.
    init?(_ text: String) {
        func number(behind words: String) -> Double? {
            for line in text.split(separator: "\n") where line.hasPrefix(words) {
                return Double(line.dropFirst(words.count).prefix { $0.isNumber || $0 == "." })
            }
            return nil
        }
        guard let transactions = number(behind: "number of transactions actually processed: "), let rate = number(behind: "tps = "),
            let failed = number(behind: "number of failed transactions: "), rate > 0, transactions > 0, transactions < 1e15
        else { return nil }
        self.transactions = Int(transactions)
        perSecond = rate
        self.failed = Int(failed)
        averageLatency = number(behind: "latency average = ") ?? 0
    }
}
