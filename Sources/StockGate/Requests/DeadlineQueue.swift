import DequeModule
import NIOCore

/// The requests of one loop in the order of their deadlines. That is the order in which they came, because all have the same time limit.
///
/// While any request waits, one timer looks at the head every 20 ms. A timer for each request would cost more than the request itself.
// @unchecked Sendable: every member is used on `eventLoop` alone.
final class DeadlineQueue: @unchecked Sendable {
    private let eventLoop: any EventLoop
    private var runs: Deque<DecreaseRun> = []
    private var isTicking = false

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func append(_ run: DecreaseRun) {
        runs.append(run)
        guard !isTicking else { return }
        isTicking = true
        schedule()
    }

    private func schedule() {
        eventLoop.scheduleTask(in: .milliseconds(20)) { self.tick() }
    }

    private func tick() {
        let now = NIODeadline.now()
        while let first = runs.first, first.isAnswered || first.deadline <= now {
            first.hitDeadline()
            runs.removeFirst()
        }
        if runs.isEmpty { isTicking = false } else { schedule() }
    }
}
