// Works on all commands that were taken from the broker, on one event loop of the engine's group.
//
// All orders of all commands that begin in one turn of the loop go to the engine in that turn. So their reserves leave in one write, and their commits wait
// together with those from HTTP. Results that become ready in one turn leave in one publish.
//
// Bounds: `maximumOrders` orders are between the engine and their result; a larger command begins when it is alone. `maximumPublishes` publishes, of at most
//   `maximumMessages` messages each, are at the broker. Further commands wait here; the prefetch bounds them.

import Logging
import MessageBroker
import NIOCore
import ServerMetrics
import StockContract
import StockGate
import StrictJSON
import Synchronization

// @unchecked Sendable: its variables are used on `eventLoop` alone, and `held` is atomic.
final class CommandDesk: @unchecked Sendable {
    /// Sends an order to the engine. The answer comes on the loop, once, within the engine's bound.
    typealias Decide = @Sendable (DecreaseRequest, _ isPatient: Bool, any EventLoop, @escaping (DecreaseAnswer) -> Void) -> Void

    static let maximumPublishes = 4
    static let maximumMessages = 512

    private let eventLoop: any EventLoop
    private let decide: Decide
    private let source: any MessageReceiving
    private let sink: any MessagePublishing
    private let metrics: CommandMetrics
    private let maximumOrders: Int
    private let maximumBlocked: Int
    private let giveUpAfter: TimeAmount
    private let asideQueue: String
    private let isLocked: @Sendable (Int64) -> Bool

    private var waiting: CircularBuffer<CommandRun> = []
    private var running: [ObjectIdentifier: CommandRun] = [:]
    private var orders = 0
    /// Commands in hand that wait for a locked row.
    private var blocked = 0
    private var ready: CircularBuffer<Draft> = []
    private var publishes = 0
    private var isPublishScheduled = false
    private var isStopping = false
    private var whenIdle: [EventLoopPromise<Void>] = []
    /// The number of commands that were taken and are not settled, begun or not.
    private let held = Atomic<Int>(0)

    init(
        eventLoop: any EventLoop,
        source: any MessageReceiving,
        sink: any MessagePublishing,
        metrics: CommandMetrics,
        maximumOrders: Int,
        maximumBlocked: Int,
        giveUpAfter: Duration,
        asideQueue: String = StockGateTopology.asideQueue,
        isLocked: @escaping @Sendable (Int64) -> Bool,
        decide: @escaping Decide
    ) {
        self.eventLoop = eventLoop
        self.source = source
        self.sink = sink
        self.metrics = metrics
        self.maximumOrders = maximumOrders
        self.maximumBlocked = maximumBlocked
        self.giveUpAfter = TimeAmount(giveUpAfter)
        self.asideQueue = asideQueue
        self.isLocked = isLocked
        self.decide = decide
    }

    /// The number of commands that were taken and are not settled, begun or not. May be read on any thread.
    var commandsHeld: Int { held.load(ordering: .relaxed) }

    /// Takes commands. May be called on any thread.
    func take(_ commands: [IncomingCommand]) {
        guard !commands.isEmpty else { return }
        held.wrappingAdd(commands.count, ordering: .relaxed)
        for command in commands { metrics.received(command) }
        eventLoop.execute {
            let giveUpAt = NIODeadline.now() + self.giveUpAfter
            for command in commands { self.waiting.append(CommandRun(command, giveUpAt: giveUpAt)) }
            self.beginWaiting()
        }
    }

    /// Begins no further command, and waits at most `bound` for those under way. The rest goes back to the queue.
    func shutdown(within bound: Duration) async {
        let idle = eventLoop.makePromise(of: Void.self)
        eventLoop.execute {
            self.isStopping = true
            self.whenIdle.append(idle)
            let all = Array(self.waiting) + Array(self.running.values)
            self.waiting = []
            for run in all { self.perform(run.life.stopped(), run) }
            self.tellIfIdle()
        }
        let timer = eventLoop.scheduleTask(in: TimeAmount(bound)) { idle.succeed(()) }
        try? await idle.futureResult.get()
        timer.cancel()
    }

    private func tellIfIdle() {
        guard running.isEmpty, waiting.isEmpty, !whenIdle.isEmpty else { return }
        let promises = whenIdle
        whenIdle = []
        for promise in promises { promise.succeed(()) }
    }

    // MARK: Deciding

    private func beginWaiting() {
        while let next = waiting.first, orders == 0 || orders + next.command.orderCount <= maximumOrders {
            waiting.removeFirst()
            orders += next.command.orderCount
            running[ObjectIdentifier(next)] = next
            perform(isStopping ? next.life.stopped() : next.life.began(mayStay: mayStay(next) || !isLocked(next)), next)
        }
        metrics.ordersInFlight.store(orders, ordering: .relaxed)
    }

    /// Whether one more command may wait in hand for a locked row.
    private func mayStay(_ run: CommandRun) -> Bool { run.isBlocked || blocked < maximumBlocked }

    private func isLocked(_ run: CommandRun) -> Bool {
        if case .command(let command) = run.command.content { isLocked(command.productID) } else { false }
    }

    private func note(_ run: CommandRun, isBlocked: Bool) {
        guard run.isBlocked != isBlocked else { return }
        run.isBlocked = isBlocked
        blocked += isBlocked ? 1 : -1
        metrics.blocked.store(blocked, ordering: .relaxed)
    }

    private func perform(_ action: CommandLife.Action, _ run: CommandRun) {
        switch action {
        case .none: break
        case .decide(let indices, let asRepeats): send(run, indices, asRepeats: asRepeats)
        case .wait(let duration):
            metrics.waits.add()
            note(run, isBlocked: run.life.isWaitingForRow)
            eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(duration)) { self.perform(run.life.waitEnded(), run) }
        case .publish(let parts):
            note(run, isBlocked: false)
            let messages = ResultMessages(command: run.command, verdicts: run.life.verdicts, asideQueue: asideQueue)
            ready.append(Draft(run: run, messages: messages, parts: parts))
            schedulePublish()
        case .acknowledge: break  // by `ended`, all of a batch at once
        case .requeue(let why):
            metrics.requeued(why)
            if !source.reject(run.command.delivery, requeue: true) { metrics.tooLate.add() }
            finish(run)
        }
    }

    private func send(_ run: CommandRun, _ indices: [Int], asRepeats: Bool) {
        guard case .command(let command) = run.command.content else { return }
        for index in indices {
            let order = command.orders[index]
            let request = DecreaseRequest(
                product: ProductID(command.productID),
                key: order.key,
                orderID: order.id,
                quantity: Quantity(order.quantity),
                isRepeat: asRepeats,
                since: command.time.microsecondsSinceEpoch
            )
            // A command that stays in hand waits for the row, and so is among the first to get it. A new one is told soon whether the row is locked.
            decide(request, run.isBlocked, eventLoop) { answer in
                self.metrics.decided(answer)
                let verdict = CommandLife.Verdict(answer, asRepeat: asRepeats)
                let isLocked = verdict == nil && (answer == .unavailable(.lockTimeout) || self.isLocked(run))
                self.perform(run.life.decided(index, verdict, isLocked: isLocked, mayStay: self.mayStay(run), at: .now()), run)
            }
        }
    }

    // MARK: Publishing

    /// Publishes at the end of the turn, so that all results that become ready in this turn leave together.
    private func schedulePublish() {
        guard !isPublishScheduled, publishes < Self.maximumPublishes else { return }
        isPublishScheduled = true
        eventLoop.execute {
            self.isPublishScheduled = false
            self.publish()
        }
    }

    private func publish() {
        while publishes < Self.maximumPublishes, !ready.isEmpty {
            var batch: [Draft] = []
            while let draft = ready.first, batch.count < Self.maximumMessages / 2 {
                ready.removeFirst()
                batch.append(draft)
            }
            publishes += 1
            let drafts = batch
            // Encoding and waiting happen outside of the loop.
            Task { [sink, eventLoop] in
                let time = Timestamp.now
                let messages = drafts.flatMap { draft in draft.parts.map { draft.messages.message($0, at: time) } }
                let outcomes: [PublishOutcome]
                do throws(BrokerError) {
                    outcomes = try await sink.publish(messages)
                } catch {
                    outcomes = []
                }
                eventLoop.execute { self.ended(drafts, outcomes) }
            }
        }
    }

    /// Records the outcomes of a publish. `outcomes` is empty if nothing was sent.
    private func ended(_ drafts: [Draft], _ outcomes: [PublishOutcome]) {
        publishes -= 1
        var rest = outcomes[...]
        var acknowledged: [CommandRun] = []
        let now = NIODeadline.now()
        for draft in drafts {
            let confirmed = draft.parts.filter { _ in rest.popFirst() == .confirmed }
            if confirmed.count < draft.parts.count { metrics.unconfirmed.add(UInt64(draft.parts.count - confirmed.count)) }
            if confirmed.contains(.deadLetter) { metrics.deadLetters.add() }
            let action = draft.run.life.published(confirmed: confirmed, at: now)
            if action == .acknowledge {
                acknowledged.append(draft.run)
                if draft.run.life.isSetAside { metrics.aside.add() } else { metrics.finished(draft.run.command) }
            } else {
                perform(action, draft.run)
            }
        }
        if !acknowledged.isEmpty {
            let inTime = source.acknowledge(acknowledged.map(\.command.delivery))
            metrics.tooLate.add(UInt64(clamping: acknowledged.count - inTime))
        }
        // The runs finish only now, after the acknowledgement: whoever waits for the last one closes the source, and a later acknowledgement would be lost.
        for run in acknowledged { finish(run) }
        if !ready.isEmpty { schedulePublish() }
    }

    private func finish(_ run: CommandRun) {
        guard running.removeValue(forKey: ObjectIdentifier(run)) != nil else {
            // The command was still waiting when the server stopped.
            held.wrappingSubtract(1, ordering: .relaxed)
            return
        }
        note(run, isBlocked: false)
        orders -= run.command.orderCount
        held.wrappingSubtract(1, ordering: .relaxed)
        metrics.ordersInFlight.store(orders, ordering: .relaxed)
        if isStopping { tellIfIdle() } else if !waiting.isEmpty { beginWaiting() }
    }
}

/// One command that was taken.
// @unchecked Sendable: `life` is used on the desk's loop alone, and `command` never changes.
private final class CommandRun: @unchecked Sendable {
    let command: IncomingCommand
    var life: CommandLife
    /// Whether it counts among those that wait in hand for a locked row.
    var isBlocked = false

    init(_ command: IncomingCommand, giveUpAt: NIODeadline) {
        self.command = command
        switch command.content {
        case .command(let content):
            life = CommandLife(orders: content.orders.count, isRepeat: command.isRepeat, giveUpAt: giveUpAt)
        case .poison(let poison):
            life = CommandLife(poison: poison.orders.isEmpty ? [.deadLetter] : [.deadLetter, .result], giveUpAt: giveUpAt)
        }
    }
}

/// The messages to publish about one command.
private struct Draft: Sendable {
    let run: CommandRun
    let messages: ResultMessages
    let parts: [CommandLife.Part]
}
