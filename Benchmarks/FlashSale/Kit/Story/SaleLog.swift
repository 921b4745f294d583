import Foundation
import Synchronization

/// What the sale's tasks write together: the story, the breaker's history and whether Redis answers.
final class SaleLog: Sendable {
    private struct State {
        var opened = Date.now
        var openedAt = ContinuousClock.now
        var story = Story()
        var breaker = BreakerHistory()
        var seen: String?
        var redisIsAlive: Bool?
        var recoveredAt: Duration?
        var stock: (redis: Int64?, database: Int64?) = (nil, nil)
        var points: [SalePoint] = []
        var faults: [Int: FaultSpan] = [:]
    }

    /// Points that are kept: a day of one a second.
    private static let pointLimit = 86_400

    private let state = Mutex(State())

    /// Time since the sale opened.
    var now: Duration { state.withLock { ContinuousClock.now - $0.openedAt } }
    /// The breaker's state at the last look, nil if it could not be read.
    var breakerState: String? { state.withLock { $0.seen } }
    var redisIsAlive: Bool? { state.withLock { $0.redisIsAlive } }
    var transitions: [BreakerTransition] { state.withLock { $0.breaker.transitions } }
    var storyLines: [Story.Line] { state.withLock { $0.story.lines } }

    func open() {
        state.withLock {
            $0.opened = .now
            $0.openedAt = .now
        }
    }

    func tell(_ text: String, at moment: Duration? = nil) {
        state.withLock { $0.story.add(text, at: moment ?? ContinuousClock.now - $0.openedAt) }
    }

    /// How the sale stands: a whole line, told in its order and not kept.
    func pass(_ text: String, at moment: Duration) {
        state.withLock { $0.story.pass(text, at: moment) }
    }

    func linesToTell(all: Bool) -> [Story.Line] {
        state.withLock { all ? $0.story.tellAll() : $0.story.tell(upTo: ContinuousClock.now - $0.openedAt) }
    }

    func learn(_ events: [BreakerHistory.Event]) {
        state.withLock { state in
            let new = state.breaker.learn(events, opened: state.opened)
            for notice in new.notices { state.story.add(notice.text, at: .seconds(notice.atSeconds)) }
        }
    }

    func look(_ seen: String?) {
        state.withLock { state in
            state.seen = seen
            guard let seen else { return }
            let at = (ContinuousClock.now - state.openedAt).inSeconds
            if let transition = state.breaker.look(seen, atSeconds: at) {
                state.story.add(transition.sentence, at: .seconds(transition.atSeconds))
            }
        }
    }

    /// When the last outage was over, the breaker's way back included.
    var recoveredAt: Duration? { state.withLock { $0.recoveredAt } }

    func recovered() {
        state.withLock { $0.recoveredAt = ContinuousClock.now - $0.openedAt }
    }

    func redis(isAlive: Bool) {
        state.withLock { $0.redisIsAlive = isAlive }
    }

    /// Units as they were last seen.
    var stock: (redis: Int64?, database: Int64?) { state.withLock { $0.stock } }
    var points: [SalePoint] { state.withLock { $0.points } }

    func saw(redis: Int64?, database: Int64?) {
        state.withLock { $0.stock = (redis, database) }
    }

    /// Faults in the order in which they began.
    var faults: [FaultSpan] { state.withLock { $0.faults.values.sorted { ($0.from, $0.server) < ($1.from, $1.server) } } }

    func began(_ fault: FaultSpan, index: Int) {
        state.withLock { $0.faults[index] = fault }
    }

    func ended(_ index: Int, at moment: Duration) {
        state.withLock { $0.faults[index]?.to = moment.inSeconds }
    }

    /// Whether a fault has begun.
    func hasBegun(_ index: Int) -> Bool { state.withLock { $0.faults[index] != nil } }

    func add(_ point: SalePoint) {
        state.withLock { if $0.points.count < Self.pointLimit { $0.points.append(point) } }
    }

    /// What came after the last point, when the sale is over: a point of its own, or a part of the last one where no time has passed since.
    func addRest(_ look: LoadGenerator.Look) {
        let before = points.last?.at
        let seconds = look.elapsed.inSeconds - (before ?? 0)
        guard before == nil || seconds > 0 else {
            return state.withLock { $0.points[$0.points.count - 1].add(look.interval) }
        }
        add(SalePoint(look, seconds: max(seconds, 0.001), log: self))
    }
}
