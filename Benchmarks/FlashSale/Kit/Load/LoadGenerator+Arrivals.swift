import DequeModule
import NIOCore

// When orders are begun.
extension LoadGenerator {
    /// Closed loop: gives idle places an order, as far as the budget allows.
    func fill() {
        while isSending, !idle.isEmpty {
            if case .perSecond = limit, tokens < 1 { return }
            guard shared.takeOrder(limit: mayFinish ? plan.orders : nil), let place = idle.popLast() else { return }
            if case .perSecond = limit { tokens -= 1 }
            begin(at: place, intended: .now())
        }
    }

    /// Open loop: sets the next arrival. Behind the schedule's end the last rate goes on until the sale may finish.
    func scheduleArrival() {
        if let seconds = arrivals?.next(using: &generator) {
            nextArrival = opened + .nanoseconds(Int64(seconds * 1e9))
        } else if !mayFinish, let rate = plan.arrivals.open?.schedule.lastRate, rate > 0 {
            let gap = generator.interarrival(perSecond: rate / Double(count))
            nextArrival = max(nextArrival ?? .now(), .now() - .seconds(1)) + .nanoseconds(Int64(gap * 1e9))
        } else {
            nextArrival = nil
            return
        }
        if let nextArrival, nextArrival > .now() { armArrival(at: nextArrival) }
    }

    private func armArrival(at moment: NIODeadline) {
        eventLoop.assumeIsolated().scheduleTask(deadline: moment) { [weak self] in
            guard let self, self.nextArrival == moment else { return }
            self.arrive()
        }
    }

    /// Open loop: takes every arrival that is due.
    func arrive() {
        while isSending, let moment = nextArrival {
            let now = NIODeadline.now()
            if moment > now { return }
            figures.due += 1
            interval.due += 1
            if waiting.isEmpty, !idle.isEmpty, shared.takeOrder(limit: mayFinish ? plan.orders : nil), let place = idle.popLast() {
                figures.health.sendLag.record(microseconds: (now - moment).nanoseconds / 1000)
                begin(at: place, intended: moment)
            } else if deadline != nil, waiting.count < Self.waitingLimit {
                waiting.append(moment)
            } else {
                figures.shed += 1
                interval.shed += 1
            }
            scheduleArrival()
        }
        finishIfDone()
    }

    /// A place has become free: the arrival that has waited longest takes it.
    func free(_ place: Int) {
        if arrivals != nil {
            dropStale()
            if !waiting.isEmpty, shared.takeOrder(limit: mayFinish ? plan.orders : nil), let moment = waiting.popFirst() {
                return begin(at: place, intended: moment)
            }
        }
        idle.append(place)
        if arrivals == nil { fill() }
        finishIfDone()
    }

    /// Turns away arrivals that have waited beyond the deadline.
    func dropStale() {
        guard let deadline, !waiting.isEmpty else { return }
        let now = NIODeadline.now()
        while let first = waiting.first, now > first + deadline {
            waiting.removeFirst()
            figures.stale += 1
            interval.stale += 1
        }
        // All orders of the plan have been issued, so none is left for the arrivals that wait.
        if mayFinish, shared.ordersIssued >= plan.orders {
            shedWaiting()
        }
    }

    /// Turns away every arrival that waits for a place.
    func shedWaiting() {
        figures.shed += waiting.count
        interval.shed += waiting.count
        waiting.removeAll()
    }
}
