import PostgresClient

/// One group on its way into PostgreSQL: what one member cannot have, the others do not wait for.
///
/// Who suffers: the members of a statement wait for its locks together, so the session's `lock_timeout` is short. After it the members of locked rows are put out, if the caller
/// can tell which they are, and the rest goes on. A group that is refused for one member is halved until that one is alone: the others stay together as far as they can.
///
/// Stops: each round ends a part, makes it smaller, or uses up its one repeat.
enum GroupWrite {
    /// How long a statement of a group waits for a lock.
    static let rowWait = Duration.milliseconds(50)

    private struct Part<Item> {
        var items: ArraySlice<Item>
        /// It has waited in vain before, and nobody could tell for what.
        var hasWaited = false
    }

    /// Writes a group.
    /// - Parameters:
    ///   - patience: how long the group goes on trying while it waits in vain for a lock that nobody can name, such as a table's
    ///   - send: writes a part and completes its items; throws if nothing of it was written, or nobody knows
    ///   - putOut: takes the items whose rows are locked out of a part, sees to them and returns the others; nil if it finds none
    ///   - fail: completes the items of a part that cannot be written
    static func run<Item>(
        _ items: ArraySlice<Item>,
        patience: Duration,
        send: (ArraySlice<Item>) throws(PostgresError) -> Void,
        putOut: (ArraySlice<Item>) -> ArraySlice<Item>?,
        fail: (ArraySlice<Item>, PostgresError) -> Void
    ) {
        let until = ContinuousClock.now + patience
        var parts = [Part(items: items)]
        while let part = parts.popLast() {
            guard !part.items.isEmpty else { continue }
            do throws(PostgresError) {
                try send(part.items)
            } catch {
                let mayHalve = part.items.count > 1
                if error.isLockTimeout {
                    if let rest = putOut(part.items) {
                        parts.append(Part(items: rest, hasWaited: part.hasWaited))
                    } else if ContinuousClock.now >= until {
                        fail(part.items, error)
                    } else if !part.hasWaited {
                        // The row has become free since, or the lock is another.
                        parts.append(Part(items: part.items, hasWaited: true))
                    } else if mayHalve {
                        parts += self.halves(part)
                    } else {
                        fail(part.items, error)
                    }
                } else if mayHalve, case .server = error.code, !error.isTransient {
                    parts += self.halves(part)
                } else {
                    fail(part.items, error)
                }
            }
        }
    }

    /// The last is sent first.
    private static func halves<Item>(_ part: Part<Item>) -> [Part<Item>] {
        let half = part.items.count / 2
        return [
            Part(items: part.items.dropFirst(half), hasWaited: part.hasWaited),
            Part(items: part.items.prefix(half), hasWaited: part.hasWaited),
        ]
    }
}
