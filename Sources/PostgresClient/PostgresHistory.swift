// Which data a session has reached: a failover or a restored backup leads the same address to another history.
//
// Invariant: the newest history is the one that was reached last, with one exception: a server of the same system on a lower timeline has been replaced, and a
//   session that reaches it is refused.
// Bounds: the last known history, and one place in its log.

/// The history of a database. Each promotion of a standby, and each recovery up to a point in time, begins a new timeline.
public struct PostgresHistory: Hashable, Sendable, CustomStringConvertible {
    /// The identifier that `initdb` gave the cluster; nil where the role may not ask for it (`pg_control_system`).
    public var system: String?
    /// The timeline on which the server writes; nil where the role may not ask for it (`pg_walfile_name`), and for a server that only reads.
    public var timeline: UInt32?
    /// The database's object id, which changes when it is dropped and made again, as for most restores of a dump.
    public var database: UInt32?

    /// Names a history.
    public init(system: String?, timeline: UInt32?, database: UInt32?) {
        self.system = system
        self.timeline = timeline
        self.database = database
    }

    /// The system, the timeline and the database, in words.
    public var description: String {
        func words(_ number: UInt32?) -> String { number.map(String.init) ?? "unknown" }
        return "system \(system ?? "unknown"), timeline \(words(timeline)), database \(words(database))"
    }
}

/// What is known of the history behind an address, as a value.
public struct PostgresHistoryWatch: Hashable, Sendable {
    /// What a session that was opened means.
    public enum News: Hashable, Sendable {
        /// The first known history, or the same one as before.
        case none
        /// Another history than before: commits of the one before may be lost.
        case changed(from: PostgresHistory)
        /// A server that was replaced. The session must not be used.
        case outdated(by: PostgresHistory)
    }

    /// What was known when a session began to ask.
    public struct Mark: Hashable, Sendable {
        var generation: UInt64
        var position: UInt64
    }

    /// The newest history; nil until a session was opened.
    public private(set) var current: PostgresHistory?
    /// How often the history has changed.
    public private(set) var generation: UInt64 = 0
    /// How far the log of the newest history has been written to disk, as far as that is known: the byte's number.
    private var position: UInt64 = 0

    /// Nothing is known.
    public init() {}

    /// Must be taken before a server is asked, because the log grows while it is asked.
    public var mark: Mark { Mark(generation: generation, position: position) }

    /// A session was opened at a server with this history. A part that the role may not ask for is nil, and counts as unchanged.
    ///
    /// - Parameters:
    ///   - position: how far the server's log has been written to disk. A log that is shorter than before on the same timeline is that of a copy which was put
    ///     in the server's place.
    ///   - mark: what was known before the server was asked
    public mutating func opened(_ history: PostgresHistory, at position: UInt64?, since mark: Mark) -> News {
        guard let current else {
            self.current = history
            self.position = position ?? 0
            return .none
        }
        func agree<Value: Equatable>(_ part: KeyPath<PostgresHistory, Value?>) -> Bool {
            guard let new = history[keyPath: part], let old = current[keyPath: part] else { return true }
            return new == old
        }
        let isSameSystem = agree(\.system)
        if isSameSystem, let new = history.timeline, let old = current.timeline, new < old { return .outdated(by: current) }
        self.current = PostgresHistory(
            system: history.system ?? current.system,
            timeline: history.timeline ?? current.timeline,
            database: history.database ?? current.database
        )
        let isShorter = mark.generation == generation && position.map { $0 < mark.position } ?? false
        if isSameSystem, agree(\.timeline), agree(\.database), !isShorter {
            self.position = max(self.position, position ?? 0)
            return .none
        }
        generation &+= 1
        self.position = position ?? 0
        return .changed(from: current)
    }
}
