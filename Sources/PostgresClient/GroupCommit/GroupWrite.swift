/// Writes one group to PostgreSQL, so that a member that cannot be written delays the others as little as possible.
///
/// Who suffers: the members of a statement wait for its locks together, so the session's `lock_timeout` is short. After a lock timeout, the members of locked
/// rows are put out, if the caller can tell which rows those are, and the rest goes on. A group that is refused because of one member is halved until that
/// member is alone; the others stay together as far as possible.
///
/// Stops: each round ends a part, makes it smaller, or uses up one of its repeats.
public enum GroupWrite {
    /// How long a statement of a group waits for a lock.
    public static let rowWait = Duration.milliseconds(50)

    /// What an error means for the part that met it.
    public enum Verdict: Hashable, Sendable {
        /// Nothing was written, but the same statement may succeed when it is sent again. That is done a bounded number of times for the whole group.
        case again
        /// The statement may succeed without one of its members. The part is halved.
        case halve
        /// The statement waited for a lock in vain.
        case locked
        /// The part fails as a whole.
        case fail
    }

    /// The verdict for statements that repeat themselves where that is safe.
    public static func verdict(on error: PostgresError) -> Verdict {
        if error.isLockTimeout { return .locked }
        if case .server = error.code, !error.isTransient { return .halve }
        return .fail
    }

    @usableFromInline
    struct Part<Member> {
        @usableFromInline var members: ArraySlice<Member>
        /// Whether the part has waited in vain for an unknown lock before.
        @usableFromInline var hasWaited: Bool

        @usableFromInline init(members: ArraySlice<Member>, hasWaited: Bool = false) {
            self.members = members
            self.hasWaited = hasWaited
        }
    }

    /// Writes a group.
    /// - Parameters:
    ///   - patience: how long the group is tried again while it waits in vain for an unknown lock, such as a lock on the whole table
    ///   - repeats: how many statements of the group may be sent again unchanged
    ///   - judge: what an error means
    ///   - send: writes a part and answers its members; throws if nothing of it was written, or if that is unknown
    ///   - putOut: takes the members whose rows are locked out of a part, has them wait, and returns the others; nil if it finds no such member
    ///   - fail: answers the members of a part that cannot be written
    @inlinable
    public static func run<Member>(
        _ members: ArraySlice<Member>,
        patience: Duration,
        repeats: Int = 0,
        judge: (PostgresError) -> Verdict = { verdict(on: $0) },
        send: (ArraySlice<Member>) throws(PostgresError) -> Void,
        putOut: (ArraySlice<Member>) -> ArraySlice<Member>?,
        fail: (ArraySlice<Member>, PostgresError) -> Void
    ) {
        let until = ContinuousClock.now + patience
        var repeats = repeats
        var parts = [Part(members: members)]
        while var part = parts.popLast() {
            guard !part.members.isEmpty else { continue }
            do throws(PostgresError) {
                try send(part.members)
            } catch {
                switch judge(error) {
                case .again where repeats > 0:
                    repeats -= 1
                    parts.append(part)
                case .again, .fail: fail(part.members, error)
                case .halve: split(part, into: &parts) { fail($0, error) }
                case .locked:
                    if let rest = putOut(part.members) {
                        parts.append(Part(members: rest, hasWaited: part.hasWaited))
                    } else if ContinuousClock.now >= until {
                        fail(part.members, error)
                    } else if part.hasWaited {
                        split(part, into: &parts) { fail($0, error) }
                    } else {
                        // Either the row has become free in the meantime, or the lock is on something else.
                        part.hasWaited = true
                        parts.append(part)
                    }
                }
            }
        }
    }

    /// Halves a part; its first half is sent first. A single member fails.
    @inlinable
    static func split<Member>(_ part: Part<Member>, into parts: inout [Part<Member>], fail: (ArraySlice<Member>) -> Void) {
        guard let (first, second) = halves(of: part.members) else { return fail(part.members) }
        parts.append(Part(members: second, hasWaited: part.hasWaited))
        parts.append(Part(members: first, hasWaited: part.hasWaited))
    }

    /// The two halves of a part; the second may be larger by one. Nil if there is only one member.
    @inlinable
    public static func halves<Member>(of members: ArraySlice<Member>) -> (first: ArraySlice<Member>, second: ArraySlice<Member>)? {
        guard members.count > 1 else { return nil }
        let half = members.count / 2
        return (members.prefix(half), members.dropFirst(half))
    }
}

extension PostgresSession {
    /// Runs a statement that is safe to repeat. It is repeated while PostgreSQL is in passing trouble: at most 3 times within `bound`. A lock timeout is thrown
    /// at once, because other callers wait behind this statement.
    public func repeatable(
        _ sql: String,
        _ parameters: [PostgresValue],
        within bound: Duration = .seconds(2)
    ) throws(PostgresError) -> PostgresResult {
        let deadline = ContinuousClock.now + bound
        var isUnknown = false
        for _ in 1..<3 {
            do throws(PostgresError) {
                return try repeated(sql, parameters, isUnknown)
            } catch  where error.isTransient && ContinuousClock.now < deadline && error.code != .connectFailed && !error.isLockTimeout {
                isUnknown = isUnknown || error.isOutcomeUnknown
            }
        }
        return try repeated(sql, parameters, isUnknown)
    }

    /// Runs a statement. If it was sent before with an unknown outcome, it may find its work done and write nothing. Then it has not waited for the synchronous
    /// standby, and what it found may still be lost there.
    private func repeated(
        _ sql: String,
        _ parameters: [PostgresValue],
        _ isUnknown: Bool
    ) throws(PostgresError) -> PostgresResult {
        let result = try query(sql, parameters)
        if isUnknown { try awaitReplication() }
        return result
    }
}
