/// Which caller has which connection, and which callers wait. This value decides; ``PostgresPool`` acts after it has released the lock.
///
/// Invariant: `busy + idle.count <= limit`, `waiting.count <= waitingLimit`. No caller waits while a connection is idle or may be opened.
struct PoolStateMachine<Connection> {
    enum Acquisition {
        case use(Connection)
        /// The caller gets the place and opens a connection. If it cannot, it returns the place with `openFailed`.
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
    /// When each idle connection became idle, the oldest first.
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
        // The connection that was used last: its memory and the server's are warm.
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

    /// Takes out the connections that have been idle since `instant` or longer, and says since when the oldest remaining one is idle.
    mutating func expireIdle(since instant: ContinuousClock.Instant) -> (close: [Connection], oldest: ContinuousClock.Instant?) {
        let count = idleSince.firstIndex { $0 > instant } ?? idleSince.count
        defer {
            idle.removeFirst(count)
            idleSince.removeFirst(count)
        }
        return (Array(idle.prefix(count)), idleSince.dropFirst(count).first)
    }

    /// The connection for a place that `open` granted could not be opened.
    mutating func openFailed() { busy -= 1 }

    /// The waiting caller's time ran out, or the caller was cancelled. Returns false if the caller does not wait any more, because a connection is on its way
    /// to it.
    mutating func leave(_ id: UInt64, expired isExpired: Bool) -> Bool {
        guard let index = waiting.firstIndex(of: id) else { return false }
        waiting.remove(at: index)
        if isExpired { expired += 1 }
        return true
    }

    /// Lets no caller have a connection any more. Returns the callers to refuse and the connections to close. Busy connections are closed when they come back.
    mutating func shutdown() -> (refuse: [UInt64], close: [Connection]) {
        isShutDown = true
        defer {
            waiting = []
            idle = []
            idleSince = []
        }
        return (waiting, idle)
    }
}
