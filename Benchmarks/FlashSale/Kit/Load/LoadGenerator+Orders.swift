import NIOCore
import SeededRandom

// One order, from its first attempt to its end.
extension LoadGenerator {
    func begin(at place: Int, intended: NIODeadline) {
        figures.sent += 1
        interval.sent += 1
        let number = ToldAnswers.number(index: index, count: figures.sent)
        var order = Order(
            number: number,
            key: figures.told.key(number),
            buyer: Int(generator.next() % UInt64(max(plan.buyers, 1))) + 1,
            product: choice.next(using: &generator),
            quantity: plan.largestQuantity.map { Int.random(in: plan.quantity...max($0, plan.quantity), using: &generator) }
                ?? plan.quantity,
            intended: intended,
            phase: phase,
            attempt: 1
        )
        if plan.habits.views > 0 { order.step = .view(left: plan.habits.views) } else { double(&order) }
        orders[place] = order
        send(order, at: place)
    }

    func send(_ order: Order, at place: Int) {
        if case .view(let left) = order.step { return look(order, at: place, left: left) }
        let body =
            "{\"productId\":\(plan.products[order.product]),\"quantity\":\(order.quantity),\"buyerId\":\"\(ToldAnswers.name(ofBuyer: order.buyer))\"}"
        let request = template.request(key: order.key, attempt: order.attempt, body: body, allocator: allocator)
        connections[place].send(request) { [weak self] result in self?.answered(result, at: place) }
    }

    private func answered(_ result: Result<HTTPAnswer, HTTPFailure>, at place: Int) {
        guard var order = orders[place] else { return }
        var outcome: AttemptOutcome
        var retryAfter: Duration?
        switch result {
        case .success(let answer):
            outcome =
                plan.isAsync
                ? AttemptOutcome(acceptance: answer.status, body: answer.body.readableBytesView)
                : AttemptOutcome(status: answer.status, body: answer.body.readableBytesView)
            retryAfter = answer.retryAfter
        case .failure(let failure):
            outcome = AttemptOutcome(failure)
        }
        guard case .unknown(let cause) = outcome, !isClosed,
            let wait = plan.retry.wait(afterAttempt: order.attempt, retryAfter: retryAfter, using: &generator)
        else { return end(order, at: place, as: outcome) }
        let next = NIODeadline.now() + TimeAmount(wait)
        if let deadline, next > order.intended + deadline {
            figures.stale += 1
            interval.stale += 1
            outcome = .unknown("DEADLINE")
            return end(order, at: place, as: outcome)
        }
        figures.countRetry(cause)
        interval.retries += 1
        order.attempt += 1
        orders[place] = order
        eventLoop.assumeIsolated().scheduleTask(deadline: next) { [weak self] in
            guard let self, let order = self.orders[place] else { return }
            self.send(order, at: place)
        }
    }

    func end(_ order: Order, at place: Int, as outcome: AttemptOutcome) {
        if order.isDoubled || order.isTwin || order.mustRepeat { compare(order, outcome) }
        guard !order.isTwin else { return leave(place) }
        count(order, outcome)
        var order = order
        if order.mustRepeat, !isClosed {
            order.mustRepeat = false
            order.isTwin = true
            order.attempt += 1
            orders[place] = order
            send(order, at: place)
        } else if let id = wantsToCancel(outcome) {
            order.step = .cancel(id)
            order.attempt = 1
            orders[place] = order
            cancel(order, at: place, id: id)
        } else {
            leave(place)
        }
    }

    private func count(_ order: Order, _ outcome: AttemptOutcome) {
        let now = NIODeadline.now()
        let microseconds = (now - order.intended).nanoseconds / 1000
        let kind = outcome.kind
        figures.phases[order.phase.rawValue].byOutcome[kind.rawValue].record(microseconds: microseconds)
        interval.latencies.record(microseconds: microseconds)
        interval.outcomes[kind.rawValue] += 1
        // Counts belong to the phase in which the order ended, so that a phase's rate is what was answered in its time.
        let index = phase.rawValue
        switch outcome {
        case .confirmed(let id):
            figures.phases[index].confirmed += 1
            figures.confirmedOrders.append(id)
            if plan.products.count > 1 { figures.confirmedProducts.append(UInt32(order.product)) }
            figures.told.tellConfirmed(id, number: order.number, buyer: order.buyer)
            sold(order.quantity, at: now)
        case .accepted(let id):
            figures.phases[index].confirmed += 1
            figures.acceptedOrders.append(id)
            figures.acceptLatencies.record(microseconds: microseconds)
            sold(order.quantity, at: now)
        case .soldOut, .soldOutOrder:
            if case .soldOutOrder(let id) = outcome {
                figures.refusedOrders.append(id)
                if plan.products.count > 1 { figures.refusedProducts.append(UInt32(order.product)) }
            } else {
                figures.told.tellSoldOut(number: order.number)
            }
            figures.phases[index].soldOut += 1
            if figures.firstSoldOutAt == nil { figures.firstSoldOutAt = Duration(now - opened) }
        case .failed(let reason):
            figures.phases[index].failed += 1
            figures.countFailure(reason)
        case .unknown(let cause):
            figures.phases[index].errors += 1
            figures.countFailure(cause)
        }
        if kind == .confirmed || kind == .soldOut {
            let arrival = (order.intended - opened).nanoseconds / 1_000_000
            figures.fairness.add(arrivedAt: arrival, buyer: order.buyer, product: order.product, hasWon: kind == .confirmed)
        }
        if case .ownPace = limit {
            figures.phases[index].ownPaceOrders += 1
            if kind == .confirmed { figures.phases[index].ownPaceConfirmed += 1 }
        }
    }

    private func sold(_ units: Int, at now: NIODeadline) {
        shared.sold(units)
        figures.unitsConfirmed += units
        figures.lastConfirmedAt = Duration(now - opened)
        figures.moments.add(milliseconds: (now - opened).nanoseconds / 1_000_000)
    }
}

extension AttemptOutcome {
    /// The outcome as the report tells it apart.
    var kind: OrderOutcome {
        switch self {
        case .confirmed, .accepted: .confirmed
        case .soldOut, .soldOutOrder: .soldOut
        case .failed: .refused
        case .unknown: .error
        }
    }
}
