// Which troubles are said: each once until its words change, and not too many in a second.
//
// Bounds: `subjects` remembered; `perSecond` said. What is beyond them is counted, and the count is said with the next one.

/// What was said last about whom, as a value. Times are nanoseconds of any clock that only grows.
struct EventWords: Sendable {
    /// Whom the words are about.
    enum Subject: Hashable, Sendable {
        case redis
        case recovery
        case product(ProductID)
        case resync(ProductID)
    }

    static let subjects = 1024
    static let perSecond = 5

    private var last: [Subject: String] = [:]
    private var second: UInt64 = 0
    private var said = 0
    private var untold = 0

    /// Nil: it was said before, or too much was said in this second. Else how many others were held back since the last one that was said.
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

    /// The trouble is over: the same words will be news again.
    /// - Returns: whether it had been said.
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
