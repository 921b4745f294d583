// Groups that write to one database in turn. What a statement costs beside its members (its start, its way to the server and back, its commit) is the same for few
// and for many. Where two groups write at the same time in a rush, each of them gathers half of what one would gather while the other writes.
//
// Invariant: at most one group has the turn. It is handed on in the order in which the groups asked for it.
// Bounds: a group waits for `patience` at most, then it writes without the turn: a group that is held up does not hold up the others.

public import BlockingThreads
import Synchronization

/// The turn of several groups.
public final class GroupTurns: Sendable {
    private struct State {
        var isTaken = false
        /// Those that wait, the first in front: one for each group at most.
        var line: [WakeSignal] = []
    }

    private let state = Mutex(State())
    /// A group of at least so many members means that there is a rush. Without a rush nobody waits.
    public let rush: Int
    /// A group with at least so many members waits for nobody.
    public let enough: Int
    /// How long a group waits for its turn at most.
    public let patience: Duration

    /// Makes a turn that nobody has.
    public init(rush: Int = 8, enough: Int = 64, patience: Duration = .milliseconds(10)) {
        self.rush = rush
        self.enough = enough
        self.patience = patience
    }

    /// Groups that wait for the turn.
    var waiting: Int { state.withLock { $0.line.count } }

    /// Waits for the turn.
    /// - Parameter signal: the caller's own, which nobody else uses
    /// - Returns: whether the caller has the turn, and must ``end()`` it
    @usableFromInline
    func take(_ signal: WakeSignal) -> Bool {
        let isFree = state.withLock { state in
            if state.isTaken { state.line.append(signal) }
            defer { state.isTaken = true }
            return !state.isTaken
        }
        if isFree || signal.wait(for: patience) { return true }
        let isInLine = state.withLock { state in
            guard let place = state.line.firstIndex(where: { $0 === signal }) else { return false }
            state.line.remove(at: place)
            return true
        }
        if isInLine { return false }
        // `end` took this caller out of the line before this lock was taken, and signals after that. The signal is taken here, so that the next `take` does not
        // find it set.
        signal.wait()
        return true
    }

    /// Hands the turn on.
    @usableFromInline
    func end() {
        let next = state.withLock { state -> WakeSignal? in
            if state.line.isEmpty {
                state.isTaken = false
                return nil
            }
            return state.line.removeFirst()
        }
        next?.signal()
    }
}
