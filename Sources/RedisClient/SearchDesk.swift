import NIOCore

/// What the searches of one client have in common, whatever they look for. One search runs at a time. It begins when somebody wants an answer, when something
/// makes the last answer doubtful, and at intervals. Those who want the answer wait here.
///
/// Bounds: one search; `maximumWaiters` who wait for it. All of it runs on `eventLoop`.
// Sendable, although its state is not locked: whoever has it runs on `eventLoop`, and its own timers do.
final class SearchDesk<Finding: SearchFinding & Sendable>: @unchecked Sendable {
    let eventLoop: any EventLoop
    let counters = SearchCounters()
    private let checkInterval: TimeAmount
    private let maximumWaiters: Int
    private var knowledge: SharedAnswer<Finding>
    private var waiters: [EventLoopPromise<Finding>] = []
    private var isChecking = false
    private(set) var isClosed = false
    /// Begins a search. Set by its owner, and dropped with `shutdown`.
    private var search: ((NIODeadline) -> Void)?

    /// - Parameters:
    ///   - age: how long the answer of a search serves those who come later.
    ///   - pause: the shortest time between the beginnings of two searches.
    ///   - checkInterval: the time between two searches while nothing has happened.
    init(eventLoop: any EventLoop, age: Duration, pause: Duration, checkInterval: Duration, maximumWaiters: Int) {
        self.eventLoop = eventLoop
        self.checkInterval = TimeAmount(checkInterval)
        self.maximumWaiters = maximumWaiters
        knowledge = SharedAnswer(age: TimeAmount(age), pause: TimeAmount(pause))
    }

    /// What was found last; kept while searches fail.
    var finding: Finding? { knowledge.finding }

    /// Waits for an answer: that of the last search if it is fresh, else that of a new one.
    /// - Parameter search: begins a search, at this time.
    /// - Returns: fails with `RedisError` if nothing was found
    func find(_ search: @escaping (NIODeadline) -> Void) -> EventLoopFuture<Finding> {
        guard !isClosed else { return eventLoop.makeFailedFuture(RedisError(.closed)) }
        self.search = search
        if !isChecking {
            isChecking = true
            checkLater()
        }
        switch knowledge.wanted(now: eventLoop.now) {
        case .use(let finding): return eventLoop.makeSucceededFuture(finding)
        case .fail(let why): return eventLoop.makeFailedFuture(RedisError(.notConnected, detail: why))
        case .wait: break
        case .search(let pause): begin(after: pause)
        }
        guard waiters.count < maximumWaiters else { return eventLoop.makeFailedFuture(RedisError(.queueFull)) }
        let promise = eventLoop.makePromise(of: Finding.self)
        waiters.append(promise)
        return promise.futureResult
    }

    /// Something says that the last answer may be wrong by now.
    func doubted() {
        guard !isClosed else { return }
        if let pause = knowledge.doubted(now: eventLoop.now) { begin(after: pause) }
    }

    /// The search has found this. All who wait are answered, unless another search must come first.
    /// - Parameter tell: called before that, with whether the finding is news
    func found(_ finding: Finding, tell: (_ isNews: Bool) -> Void) {
        guard let isNews = delivers(knowledge.found(finding, now: eventLoop.now)) else { return }
        tell(isNews)
        answer(.success(finding))
    }

    /// The search has found nothing. All who wait are told why, unless another search must come first.
    /// - Parameters:
    ///   - words: what was wrong with each server that was asked
    ///   - silent: what is said where no server was asked to the end
    ///   - tell: called before that, if it is news
    func foundNothing(_ words: [String], silent: String, _ tell: ((_ why: String) -> Void)?) {
        let why = words.isEmpty ? silent : words.joined(separator: "; ")
        counters.failures.increment()
        guard let isNews = delivers(knowledge.failed(why, now: eventLoop.now)) else { return }
        if isNews { tell?(why) }
        answer(.failure(RedisError(.notConnected, detail: why)))
    }

    private func answer(_ result: Result<Finding, RedisError>) {
        let waiters = self.waiters
        self.waiters = []
        for waiter in waiters { waiter.completeWith(result.mapError { $0 as any Error }) }
    }

    /// Begins no further search, and tells all who wait.
    func shutdown() {
        isClosed = true
        search = nil
        answer(.failure(RedisError(.closed)))
    }

    private func delivers(_ found: SharedAnswer<Finding>.Found) -> Bool? {
        switch found {
        case .again(let pause):
            begin(after: pause)
            return nil
        case .deliver(let isNews): return isNews
        }
    }

    private func checkLater() {
        _ = eventLoop.scheduleTask(in: checkInterval) {
            guard !self.isClosed else { return }
            self.doubted()
            self.checkLater()
        }
    }

    private func begin(after pause: TimeAmount) {
        _ = eventLoop.scheduleTask(in: pause) {
            guard !self.isClosed else { return }
            let now = self.eventLoop.now
            self.knowledge.began(now: now)
            self.counters.searches.increment()
            self.search?(now)
        }
    }
}

/// What searches have done: written on their loop alone, read from anywhere.
final class SearchCounters: Sendable {
    let searches = LoopCounters.Counter()
    let failures = LoopCounters.Counter()
    let changes = LoopCounters.Counter()
}
