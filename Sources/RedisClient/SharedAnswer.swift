import NIOCore

/// What a search can find: a master, or the map of a cluster's slots.
protocol SearchFinding: Equatable {
    associatedtype News: Equatable
    /// What is news to those who are told, when it differs from what they were told last.
    var news: News { get }
}

extension MasterSearch.Master: SearchFinding {
    var news: RedisEndpoint { endpoint }
}

/// What a client knows of its master.
typealias MasterKnowledge = SharedAnswer<MasterSearch.Master>

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
        /// Hand it to all who wait. `isNews`: it is another than was last told of, or the first after a failure.
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
    /// Whether the next search is the second one because of a doubt.
    private var isAgain = false
    /// What was found last; kept while searches fail.
    private(set) var finding: Finding?
    /// What was last told of: nil for nothing yet.
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

    /// Something says that the answer may be another one.
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
