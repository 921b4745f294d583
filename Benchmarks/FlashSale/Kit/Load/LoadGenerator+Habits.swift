import NIOCore

// What buyers do beside ordering: look at the product, click twice, cancel.
extension LoadGenerator {
    // MARK: Looking

    /// One more look at the product; behind the last one the order goes out.
    func look(_ order: Order, at place: Int, left: Int) {
        let asked = NIODeadline.now()
        let template = views[order.product]
        connections[place].send(template.request()) { [weak self] result in
            guard let self, var order = self.orders[place] else { return }
            self.figures.views += 1
            self.figures.viewLatencies.record(microseconds: (NIODeadline.now() - asked).nanoseconds / 1000)
            if case .success(let answer) = result, answer.status == 200 {} else { self.figures.viewErrors += 1 }
            if self.isClosed { return self.end(order, at: place, as: .unknown("ABANDONED")) }
            order.step = left > 1 ? .view(left: left - 1) : .order
            // An order is meant to be sent when its buyer has looked enough; the looks have a time of their own.
            order.intended = .now()
            if order.step == .order { self.double(&order) }
            self.orders[place] = order
            self.send(order, at: place)
        }
    }

    // MARK: Clicking twice

    /// Sends the same order once more, at the same time, if a connection is free.
    func double(_ order: inout Order) {
        guard plan.habits.duplicates > 0, Double.random(in: 0..<1, using: &generator) < plan.habits.duplicates else { return }
        figures.duplicates += 1
        guard let place = idle.popLast() else {
            order.mustRepeat = true
            return
        }
        order.isDoubled = true
        var twin = order
        twin.isTwin = true
        twin.step = .order
        orders[place] = twin
        send(twin, at: place)
    }

    /// Compares two answers to one key: keeps the first, and holds the second against it.
    func compare(_ order: Order, _ outcome: AttemptOutcome) {
        guard let first = pairs.removeValue(forKey: order.number) else {
            pairs[order.number] = outcome
            return
        }
        // After an unclear answer nobody knows what became of the order, so the two answers cannot be compared.
        guard first.kind != .error, outcome.kind != .error else { return }
        let isSame = first.kind == outcome.kind && (first.kind != .confirmed || first.orderID == outcome.orderID)
        // After a cancellation there may be units again.
        let isLater = plan.habits.cancellations > 0 && Set([first.kind, outcome.kind]) == [.soldOut, .confirmed]
        if !isSame, !isLater { figures.addConflict("key \(order.key): \(first) and \(outcome)") }
    }

    // MARK: Cancelling

    func wantsToCancel(_ outcome: AttemptOutcome) -> Int64? {
        guard case .confirmed(let id) = outcome, plan.habits.cancellations > 0, !isClosed else { return nil }
        return Double.random(in: 0..<1, using: &generator) < plan.habits.cancellations ? id : nil
    }

    func cancel(_ order: Order, at place: Int, id: Int64) {
        let request = ByteBuffer(string: cancelHead.replacing("{id}", with: String(id)))
        connections[place].send(request) { [weak self] result in
            guard let self, var order = self.orders[place] else { return }
            var retryAfter: Duration?
            if case .success(let answer) = result {
                retryAfter = answer.retryAfter
                let body = OrderAnswer(json: answer.body.readableBytesView)
                if answer.status == 200, body?.status == "CANCELLED" {
                    self.figures.cancelledOrders.append(id)
                    self.figures.unitsCancelled += order.quantity
                    return self.leave(place)
                }
                // A clear no: the order stays CONFIRMED.
                if (400..<500).contains(answer.status), ![408, 409, 424, 429].contains(answer.status) {
                    self.figures.cancellationsFailed += 1
                    return self.leave(place)
                }
            }
            guard !self.isClosed,
                let wait = self.plan.retry.wait(afterAttempt: order.attempt, retryAfter: retryAfter, using: &self.generator)
            else {
                self.figures.cancellationsFailed += 1
                return self.leave(place)
            }
            order.attempt += 1
            self.orders[place] = order
            self.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(wait)) { [weak self] in
                guard let self, let order = self.orders[place] else { return }
                self.cancel(order, at: place, id: id)
            }
        }
    }

    func leave(_ place: Int) {
        orders[place] = nil
        free(place)
    }
}

extension AttemptOutcome {
    /// The order that was told of.
    var orderID: Int64? {
        switch self {
        case .confirmed(let id), .accepted(let id), .soldOutOrder(let id): id
        case .soldOut, .failed, .unknown: nil
        }
    }
}
