import NIOCore

/// What a client knows of its master, shared by all its event loops, and when it searches again. No sockets or clocks.
///
/// Invariant: one search at a time. An answer serves until it is `age` old, or until something raises a doubt: a server that says READONLY or turns out to be
/// no master, or a sentinel's message. A doubt that comes while a search runs makes that search run once more before its answer is used.
/// Bounds: two searches begin at least `pause` apart.
struct MasterKnowledge {
    typealias Master = MasterSearch.Master

    enum Wanted: Equatable {
        case use(Master)
        case fail(String)
        /// A search is under way, or will begin.
        case wait
        /// Begin a search after this time.
        case search(after: TimeAmount)
    }

    enum Found: Equatable {
        /// Hand it to all who wait. `isNews`: it is another master than was last told of, or the first after a failure.
        case deliver(isNews: Bool)
        /// Search once more, after this time.
        case again(after: TimeAmount)
    }

    private enum Phase {
        case idle
        case scheduled
        case searching(isAgain: Bool)
    }

    private enum Outcome {
        case found(Master)
        case failed(String)
    }

    private let age: TimeAmount
    private let pause: TimeAmount
    private var phase = Phase.idle
    private var last: (outcome: Outcome, at: NIODeadline)?
    private var lastBegan: NIODeadline?
    private var isDoubted = false
    /// Whether the next search is the second one because of a doubt.
    private var isAgain = false
    /// The master that was found last; kept while searches fail.
    private(set) var master: Master?
    /// What was last told of: nil for nothing yet.
    private var told: Told?

    private enum Told: Equatable {
        case master(RedisEndpoint)
        case trouble(String)
    }

    init(age: TimeAmount, pause: TimeAmount) {
        self.age = age
        self.pause = pause
    }

    /// Somebody wants to connect.
    mutating func wanted(now: NIODeadline) -> Wanted {
        switch phase {
        case .scheduled, .searching: return .wait
        case .idle:
            if let last = self.last, !isDoubted, now < last.at + age {
                switch last.outcome {
                case .found(let master): return .use(master)
                case .failed(let why): return .fail(why)
                }
            }
            return .search(after: schedule(now: now))
        }
    }

    /// Something says that the master may be another one.
    /// - Returns: begin a search after this time; nil if one is under way, or will begin
    mutating func doubted(now: NIODeadline) -> TimeAmount? {
        isDoubted = true
        guard case .idle = phase else { return nil }
        return schedule(now: now)
    }

    /// The search that was scheduled begins.
    mutating func began(now: NIODeadline) {
        isDoubted = false
        lastBegan = now
        phase = .searching(isAgain: self.isAgain)
        self.isAgain = false
    }

    mutating func found(_ master: Master, now: NIODeadline) -> Found {
        if let pause = repeats(now: now) { return .again(after: pause) }
        phase = .idle
        last = (.found(master), now)
        self.master = master
        let news = Told.master(master.endpoint)
        defer { told = news }
        return .deliver(isNews: told != news)
    }

    /// No master was found, for this reason. What was found before stays known.
    mutating func failed(_ why: String, now: NIODeadline) -> Found {
        if let pause = repeats(now: now) { return .again(after: pause) }
        phase = .idle
        last = (.failed(why), now)
        let news = Told.trouble(why)
        defer { told = news }
        return .deliver(isNews: told != news)
    }

    /// A doubt came while the search ran. Only once: those who wait are answered after the second search, whatever comes meanwhile.
    private mutating func repeats(now: NIODeadline) -> TimeAmount? {
        guard isDoubted, case .searching(isAgain: false) = phase else { return nil }
        self.isAgain = true
        return schedule(now: now)
    }

    private mutating func schedule(now: NIODeadline) -> TimeAmount {
        phase = .scheduled
        guard let began = lastBegan, now < began + pause else { return .zero }
        return began + pause - now
    }
}
