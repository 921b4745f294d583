import FlashSaleKit

/// Exit statuses, for scripts.
enum Status {
    /// The sale was held, the audit passed, every threshold was reached.
    static let pass: Int32 = 0
    /// The sale was held and the audit failed.
    static let auditFailed: Int32 = 1
    /// The arguments or settings cannot be understood, or name what is not there.
    static let usage: Int32 = 2
    /// The sale or the audit could not be held: a server, a store or the stack script failed, nothing was sold, or a report could not be written.
    static let unavailable: Int32 = 3
    /// `compare`: the second is worse.
    static let worse: Int32 = 9
    /// Interrupted.
    static let interrupted: Int32 = 130

    /// A threshold of that kind was missed.
    static func missed(_ kind: Requirement.Kind) -> Int32 {
        switch kind {
        case .latency: 4
        case .outcomes: 5
        case .rate: 6
        case .books: 7
        case .generator: 8
        }
    }

    /// The list for `--help`.
    static let help = """
        Exit status: 0 the audit passes and every threshold is reached; 1 the audit fails; 2 wrong arguments or settings; 3 the sale or the audit could not be held, a fault was never made, \
        nothing was sold, or a report could not be written; \
        a threshold of --require was missed: 4 a latency, 5 errors or another count of orders, 6 the rate, 7 a figure of the books, 8 the harness was its own bottleneck \
        (the first one missed, in the order in which they are written); 9 compare: the second is worse; 130 interrupted (what was taken away is given back first).
        """
}
