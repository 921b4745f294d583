// Decides which troubles are reported: each one once until its words change, and only so many in a second.
//
// Bounds: `subjects` are remembered, and `perSecond` troubles reported. What exceeds a bound is counted, and the next report says how many those were.

/// The last report about each subject, as a value. Times are nanoseconds of any clock that only grows.
struct EventWords: Sendable {
    /// What a report is about.
    enum Subject: Hashable, Sendable {
        case redis
        case recovery
        case product(ProductID)
        case resync(ProductID)
        case fence(ProductID)
        case gatedProducts
        /// A subject that concerns Redis, at one master of a cluster.
        indirect case atMaster(String, Subject)
    }

    static let subjects = 1024
    static let perSecond = 5

    private var last: [Subject: String] = [:]
    private var second: UInt64 = 0
    private var said = 0
    private var untold = 0

    /// Nil if these words repeat the last report, or if too much was said in this second. Otherwise report them; the result is the number of troubles that were
    /// held back since the last report.
    mutating func say(_ words: String, of subject: Subject, at now: UInt64) -> Int? {
        if last[subject] == words { return nil }
        let isNew = last[subject] == nil
        guard admits(at: now), !isNew || last.count < Self.subjects else {
            untold += 1
            return nil
        }
        last[subject] = words
        defer { untold = 0 }
        return untold
    }

    /// Counts an event that is news every time.
    /// - Returns: nil if too much was said in this second. Otherwise report the event; the result is the number of events that were left out since the last
    ///   report.
    mutating func admit(at now: UInt64) -> Int? {
        guard admits(at: now) else {
            untold += 1
            return nil
        }
        defer { untold = 0 }
        return untold
    }

    /// A trouble is over, so that the same words will be reported again.
    /// - Returns: whether the trouble had been reported
    mutating func isOver(_ subject: Subject) -> Bool { last.removeValue(forKey: subject) != nil }

    private mutating func admits(at now: UInt64) -> Bool {
        if now / 1_000_000_000 != second {
            second = now / 1_000_000_000
            said = 0
        }
        said += 1
        return said <= Self.perSecond
    }
}
