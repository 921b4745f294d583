import Synchronization

// The sale itself: orders go out while servers are taken away and given back.
extension Sale {
    /// Sends the sale's orders to their end, while servers are taken away and given back. Returns whether the sale was ended by its limit.
    func hold(_ load: Load, units: Int) async throws -> Bool {
        let course = Course(disruptions: settings.disruptions)
        let limit = settings.limit
        let reachedLimit = LimitFlag()
        try await load.open()
        log.open()
        log.tell("sale opens", at: .zero)
        let faults = Task {
            try await withThrowingTaskGroup(of: Void.self) { disruptions in
                for (index, disruption) in settings.disruptions.enumerated() {
                    disruptions.addTask { try await disrupt(disruption, index: index, course: course, load: load, units: units) }
                }
                try await disruptions.waitForAll()
            }
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await interruption.wait()
                log.tell("interrupted: no more orders are sent, what was taken away is given back")
                faults.cancel()
                try await load.stop()
                // What is under way may still be answered.
                try await Task.sleep(for: .seconds(5))
                try await load.abandon()
            }
            group.addTask {
                do {
                    try await withTaskCancellationHandler {
                        try await faults.value
                    } onCancel: {
                        faults.cancel()
                    }
                    try await load.allowFinish()
                } catch is CancellationError where interruption.isSet {
                    try await load.allowFinish()
                } catch {
                    // A sale whose outage cannot be made shows nothing: it ends here.
                    try await load.abandon()
                    throw error
                }
            }
            group.addTask {
                try await Task.sleep(for: limit)
                reachedLimit.set()
                log.tell("the longest time for a sale, \(Self.decimal(limit.inSeconds)) s, is over: no more orders")
                try await load.stop()
                try await Task.sleep(for: .seconds(20))
                try await load.abandon()
            }
            try await withTaskCancellationHandler {
                try await load.finished()
            } onCancel: {
                Task { try await load.abandon() }
            }
            // The servers come back before the books are read, and before this returns.
            if interruption.isSet { _ = await faults.result }
            group.cancelAll()
            while let result = await group.nextResult() {
                if case .failure(let error) = result, !(error is CancellationError) { throw error }
            }
        }
        try Task.checkCancellation()
        return reachedLimit.isSet
    }

    private func disrupt(_ planned: Disruption, index: Int, course: Course, load: Load, units: Int) async throws {
        // The process id is asked for now, so that the kill itself comes in time.
        var pid = planned.leaderOf == nil ? await pid(of: planned) : nil
        guard try await wait(for: planned.start, load: load) else {
            log.tell("\(planned.server) is not \(planned.kind.words): the sale was over before")
            return
        }
        let disruption = try await tools.find(planned)
        if planned.leaderOf != nil { pid = await self.pid(of: disruption) }
        let server = planned.leaderOf == nil ? disruption.server : "\(disruption.server) (\(planned.server))"
        // Moments that only the sale tells may turn out to overlap.
        if disruption.kind.takesAway, await !course.take(disruption.place) {
            log.tell("\(disruption.server) is not \(disruption.kind.words): it is away already")
            return try await course.skip(index, load: load)
        }
        try await course.begin(index, load: load)
        let before = try await load.peek()
        let beganAt = log.now
        log.began(FaultSpan(server: server, what: disruption.kind.words, from: beganAt.inSeconds, to: nil), index: index)
        do {
            try await tools.make(disruption)
            let number = pid.map { " (pid \($0))" } ?? ""
            let sold = Self.percent(before.figures.unitsConfirmed, of: units)
            log.tell("\(server)\(number) \(disruption.kind.words), with \(sold) of the units sold", at: beganAt)
            // A cancellation ends this wait; the server is given back either way.
            switch disruption.end {
            case .after(let length): try await Task.sleep(for: max(.zero, length - (log.now - beganAt)))
            case .at(let moment): _ = try await wait(for: moment, load: load)
            }
        } catch {
            await giveBack(disruption)
            await course.leave(disruption)
            log.ended(index, at: log.now)
            if !disruption.kind.isOnce { log.tell("\(server) is given back: the sale ends early") }
            throw error
        }
        let after = try await load.peek()
        await giveBack(disruption)
        await course.leave(disruption)
        let backAt = log.now
        log.ended(index, at: disruption.kind.isOnce ? beganAt : backAt)
        if !disruption.kind.isOnce {
            let sold = after.figures.confirmed - before.figures.confirmed
            let seconds = (after.elapsed - before.elapsed).inSeconds
            var text = "\(server) is back; meanwhile \(sold.grouped) orders were \(promise) in \(Self.decimal(seconds)) s"
            if let pace = Self.ownPace(from: before.figures, to: after.figures) { text += ", at the machine's own pace \(pace.grouped)/s" }
            log.tell(text, at: backAt)
        }
        try await course.giveBack(index, load: load)
        if planned.server == "redis" || planned.leaderOf == "redis" { try await waitUntilClosed(since: backAt) }
        log.recovered()
        try await course.recover(index, load: load)
    }

    private func pid(of disruption: Disruption) async -> Int? {
        guard disruption.kind == .kill || disruption.kind == .pause else { return nil }
        let table = try? await tools.stack?.run(["status", disruption.server])
        return table.flatMap { Self.pid(of: disruption.server, in: $0) }
    }

    private func giveBack(_ disruption: Disruption) async {
        do {
            // In a task of its own: also a cancelled sale puts the server back.
            try await Task { try await tools.undo(disruption) }.value
        } catch {
            log.tell("\(disruption.server) does not come back: \(error)")
        }
    }

    /// Waits for a moment of the sale; false if the sale's limit comes first.
    func wait(for moment: Moment, load: Load) async throws -> Bool {
        while true {
            if moment.isReached(elapsed: log.now, soldFraction: load.soldFraction) { return true }
            if log.now > settings.limit { return false }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    /// Redis is back; the sale goes on until the breaker is CLOSED and has been for a moment. At most 30 s.
    func waitUntilClosed(since: Duration) async throws {
        guard settings.productAdmin != nil else { return }
        var closedLooks = 0
        while log.now < since + .seconds(30) {
            try await Task.sleep(for: .milliseconds(250))
            closedLooks = log.breakerState == "CLOSED" ? closedLooks + 1 : 0
            // Four looks: a pause that the breaker has not felt yet would otherwise pass for recovered.
            if closedLooks >= 4 { return }
        }
        log.tell("the breaker is \(log.breakerState ?? "unknown") 30 s after Redis came back")
    }

    /// Looks at what Redis and PostgreSQL hold, until cancelled.
    func probeStock(_ product: Int64) async throws {
        if case .none = basis { return }
        while !Task.isCancelled {
            let (redis, stock) = await basis.look(at: product)
            log.redis(isAlive: redis != nil)
            log.saw(redis: redis?.counter, database: stock)
            try await Task.sleep(for: .milliseconds(300))
        }
    }
}

/// Set once by the task that ends a sale at its limit.
private final class LimitFlag: Sendable {
    private let flag = Mutex(false)

    var isSet: Bool { flag.withLock { $0 } }

    func set() {
        flag.withLock { $0 = true }
    }
}

/// Which outages are under way, and so which stage and phase the sale is in.
private actor Course {
    private let count: Int
    private var begun: Set<Int> = []
    private var active: [Int: UnitBudget.Stage] = [:]
    private var away: Set<String> = []

    init(disruptions: [Disruption]) {
        count = disruptions.count
    }

    /// Takes the right to take a server away; false if another fault has it.
    func take(_ server: String) -> Bool { away.insert(server).inserted }

    /// The server is back.
    func leave(_ disruption: Disruption) {
        if disruption.kind.takesAway { away.remove(disruption.place) }
    }

    /// The fault is not made: no units are kept for it any longer.
    func skip(_ index: Int, load: Load) async throws {
        begun.insert(index)
        try await enter(load)
    }

    func begin(_ index: Int, load: Load) async throws {
        begun.insert(index)
        active[index] = .down(index)
        try await enter(load)
    }

    func giveBack(_ index: Int, load: Load) async throws {
        active[index] = .recovering(index)
        try await enter(load)
    }

    func recover(_ index: Int, load: Load) async throws {
        active[index] = nil
        try await enter(load)
    }

    private func enter(_ load: Load) async throws {
        // Where two outages overlap, the one that began last decides which load goes out.
        if let current = active.keys.max(), let stage = active[current] {
            try await load.enter(stage, phase: .outage)
        } else if let next = (0..<count).first(where: { !begun.contains($0) }) {
            try await load.enter(.approaching(next), phase: .after)
        } else {
            try await load.enter(.open, phase: .after)
        }
    }
}
