import NIOCore

/// What a search can find: a master, or the map of a cluster's slots.
protocol SearchFinding: Equatable {
    associatedtype News: Equatable
    /// The part of a finding that those who are told care about: a finding is news if this part differs from the last one told.
    var news: News { get }
}

extension MasterSearch.Master: SearchFinding {
    var news: RedisEndpoint { endpoint }
}

/// What a search has found last, shared by all event loops of a client, and when the next search begins. No sockets or clocks.
///
/// Invariant: one search at a time. An answer serves until it is `age` old, or until something raises a doubt: a server that says READONLY or turns out to be
/// no master, a redirection, or a sentinel's message. A doubt that comes while a search runs makes that search run once more before its answer is used.
/// Bounds: two searches begin at least `pause` apart.
struct SharedAnswer<Finding: SearchFinding> {
    enum Wanted: Equatable {
        case use(Finding)
        case fail(String)
        /// A search is under way, or will begin.
        case wait
        /// Begin a search after this time.
        case search(after: TimeAmount)
    }

    enum Found: Equatable {
        /// Hand it to all who wait. `isNews`: it differs from what was last told, or is the first after a failure.
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
        case found(Finding)
        case failed(String)
    }

    private let age: TimeAmount
    private let pause: TimeAmount
    private var phase = Phase.idle
    private var last: (outcome: Outcome, at: NIODeadline)?
    private var lastBegan: NIODeadline?
    private var isDoubted = false
    /// Whether the next search repeats the last one, because a doubt came while that ran.
    private var isAgain = false
    /// What was found last; kept while searches fail.
    private(set) var finding: Finding?
    /// What was told last; nil if nothing was told yet.
    private var told: Told?

    private enum Told: Equatable {
        case finding(Finding.News)
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
                case .found(let finding): return .use(finding)
                case .failed(let why): return .fail(why)
                }
            }
            return .search(after: schedule(now: now))
        }
    }

    /// Something says that the last answer may be wrong by now.
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

    mutating func found(_ finding: Finding, now: NIODeadline) -> Found {
        if let pause = repeats(now: now) { return .again(after: pause) }
        phase = .idle
        last = (.found(finding), now)
        self.finding = finding
        let news = Told.finding(finding.news)
        defer { told = news }
        return .deliver(isNews: told != news)
    }

    /// Nothing was found, for this reason. What was found before stays known.
    mutating func failed(_ why: String, now: NIODeadline) -> Found {
        if let pause = repeats(now: now) { return .again(after: pause) }
        phase = .idle
        last = (.failed(why), now)
        let news = Told.trouble(why)
        defer { told = news }
        return .deliver(isNews: told != news)
    }

    /// The pause before the search runs once more, because a doubt came while it ran; nil if it does not. It is repeated only once: those who wait are answered
    /// after the second search, whatever comes meanwhile.
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
