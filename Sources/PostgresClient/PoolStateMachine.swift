/// Who has which connection and who waits for one. A value: it decides, ``PostgresPool`` acts after it has let go of the lock.
///
/// Invariant: `busy + idle.count <= limit`, `waiting.count <= waitingLimit`; nobody waits while a connection is idle or may be opened.
struct PoolStateMachine<Connection> {
    enum Acquisition {
        case use(Connection)
        /// The place is taken; the caller opens, and gives the place back with `openFailed` if it cannot.
        case open
        case wait
        case rejectFull
        case rejectShutDown
    }

    enum Return {
        case handOver(Connection, to: UInt64)
        case kept
        case close(Connection)
    }

    let limit: Int
    let waitingLimit: Int
    private(set) var idle: [Connection] = []
    /// Since when each idle connection is; the first has been for longest.
    private var idleSince: [ContinuousClock.Instant] = []
    private(set) var busy = 0
    private(set) var waiting: [UInt64] = []
    private(set) var rejected = 0
    private(set) var expired = 0
    private(set) var isShutDown = false

    init(limit: Int, waitingLimit: Int) {
        self.limit = max(1, limit)
        self.waitingLimit = max(0, waitingLimit)
    }

    /// A caller wants a connection; `id` is new for every caller.
    mutating func acquire(_ id: UInt64) -> Acquisition {
        if isShutDown { return .rejectShutDown }
        // The one used last: its memory and the server's are warm.
        if let connection = idle.popLast() {
            idleSince.removeLast()
            busy += 1
            return .use(connection)
        }
        if busy < limit {
            busy += 1
            return .open
        }
        guard waiting.count < waitingLimit else {
            rejected += 1
            return .rejectFull
        }
        waiting.append(id)
        return .wait
    }

    /// A caller is done with its connection.
    mutating func giveBack(_ connection: Connection, at now: ContinuousClock.Instant = .now) -> Return {
        if isShutDown {
            busy -= 1
            return .close(connection)
        }
        if !waiting.isEmpty { return .handOver(connection, to: waiting.removeFirst()) }
        busy -= 1
        idle.append(connection)
        idleSince.append(now)
        return .kept
    }

    /// Takes out those connections that have been idle since `instant` or longer, and says when the next one may be due.
    mutating func expireIdle(since instant: ContinuousClock.Instant) -> (close: [Connection], oldest: ContinuousClock.Instant?) {
        let count = idleSince.firstIndex { $0 > instant } ?? idleSince.count
        defer {
            idle.removeFirst(count)
            idleSince.removeFirst(count)
        }
        return (Array(idle.prefix(count)), idleSince.dropFirst(count).first)
    }

    /// A place taken by `open` could not be filled.
    mutating func openFailed() { busy -= 1 }

    /// A waiting caller's time passed, or it was cancelled. False: it is no longer waiting, its connection is on its way.
    mutating func leave(_ id: UInt64, expired isExpired: Bool) -> Bool {
        guard let index = waiting.firstIndex(of: id) else { return false }
        waiting.remove(at: index)
        if isExpired { expired += 1 }
        return true
    }

    /// No one gets a connection any more. Returns whom to refuse and what to close; busy ones are closed when they come back.
    mutating func shutDown() -> (refuse: [UInt64], close: [Connection]) {
        isShutDown = true
        defer {
            waiting = []
            idle = []
            idleSince = []
        }
        return (waiting, idle)
    }
}
