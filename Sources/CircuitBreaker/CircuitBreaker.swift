// The shell around the machine: it holds one lock for a moment while it asks the machine, lets go of it, and then does what the machine wants done.
//
// Invariants
// - Lock order: timer, machine, stripe or event hub. No lock is held while a reader is resumed, a recovery or a health check is started, or a call is run.
//   The clock is read outside the locks; the wall clock and a custom wait in open are called inside, and say so where they are given.
// - The atomics repeat what the machine says, for rejections that need no lock. While the machine changes they may lag behind it for a moment: a call that is
//   turned away then counts as one that came before the change.
// - Calls of a free period are counted in the stripes, without the machine's lock. Whoever takes that lock to ask the machine something that can
//   change it ends the period first and tells the machine of its calls (`endFreePeriod`).
// Bounds: one timer task, one recovery, one health check, the event hub's rings.

import Synchronization

/// Keeps calls away from a callee that is in trouble, and finds out when it has recovered.
///
/// ```swift
/// let breaker = CircuitBreaker(
///     name: "stock",
///     configuration: try CircuitBreakerConfiguration { $0.slowCallDurationThreshold = .milliseconds(20) },
///     recovery: { try await resynchronise() }
/// )
///
/// switch breaker.admit() {
/// case .permitted(let permit):
///     do {
///         let answer = try await stock.reserve(1)
///         breaker.record(.success, for: permit)
///         return answer
///     } catch {
///         breaker.record(.failure("refused"), for: permit)
///         return try await fallback()
///     }
/// case .rejected:
///     return try await fallback()
/// }
/// ```
///
/// Record each permit's outcome once. A permit that is never recorded costs a probe of half-open until its lease ends.
public final class CircuitBreaker: Sendable {
    /// The breaker's name, as it stands in events and snapshots.
    public let name: String
    /// The settings it was made with.
    public let configuration: CircuitBreakerConfiguration

    /// How a call may be answered without the lock.
    enum Shortcut {
        static let none: UInt8 = 0
        static let open: UInt8 = 1
        static let forcedOpen: UInt8 = 2
        static let recovery: UInt8 = 3
        static let disabled: UInt8 = 4
        /// The stripes hold a free period, or did a moment ago.
        static let free: UInt8 = 5
    }

    /// Ending a free period costs about as much as some calls with the lock. So a period is begun only after this many steps without trouble: the next
    /// failure would end it.
    private static let calmStepsBeforeFreePeriod = 32

    struct Timer {
        var task: Task<Void, Never>?
        var wake = Int64.max
        var number: UInt64 = 0
        var isShutDown = false
    }

    let clock: ClockSource
    let wallClock: @Sendable () -> Int64
    let hub: EventHub
    let shortcut = Atomic<UInt8>(Shortcut.none)
    /// Until this time a call is rejected by the shortcut alone, without asking the machine.
    let rejectsUntil = Atomic<Int64>(.min)
    let openUntil = Atomic<Int64>(.min)
    /// Rejections by shortcut that the machine has not been told of.
    let unabsorbedRejections = Atomic<UInt64>(0)
    private let stripes = Stripes()
    /// Steps of the machine since the last result that made an event. Written with the lock held.
    private let calmSteps = Atomic<Int>(calmStepsBeforeFreePeriod)
    let machine: Guarded<CircuitBreakerMachine>
    let timer = Guarded(Timer())
    /// Set once at the end of `init`, for they call back.
    let steps = Guarded<(recovery: TimedStep?, healthCheck: TimedStep?)>((nil, nil))

    /// Makes a breaker.
    /// - Parameters:
    ///   - name: how it is called in events and snapshots.
    ///   - configuration: how it behaves.
    ///   - clock: where its time comes from. Nil takes the system's monotonic clock: the coarse one (see ``CoarseCircuitBreakerClock``) where its
    ///     lag is at most a tenth of the slow-call threshold, the exact one otherwise.
    ///   - wallClock: milliseconds since 1970, for the events. Called while a lock is held: it must be quick and must not call the breaker.
    ///   - seed: the start of the random numbers that spread the wait in open; nil takes the system's.
    ///   - startsInRecovery: begin in half-open with the recovery running, and close when it passes. Without a recovery it begins closed.
    ///   - recovery: must return before half-open lets a probe through. Throwing, or taking longer than
    ///     ``CircuitBreakerConfiguration/Values/recoveryTimeLimit``, goes back to open. It is cancelled when its result is no longer wanted, and
    ///     never runs twice at a time.
    ///   - healthCheck: true when the callee answers. Run while open and the wait is over, and as a probe where half-open has no traffic.
    public init(
        name: String,
        configuration: CircuitBreakerConfiguration = .default,
        clock: (any CircuitBreakerClock)? = nil,
        wallClock: @escaping @Sendable () -> Int64 = systemUnixMilliseconds,
        seed: UInt64? = nil,
        startsInRecovery: Bool = false,
        recovery: (@Sendable () async throws -> Void)? = nil,
        healthCheck: (@Sendable () async -> Bool)? = nil
    ) {
        self.name = name
        self.configuration = configuration
        let clock = ClockSource(clock, slowCallDurationThreshold: configuration.slowCallDurationThreshold)
        self.clock = clock
        self.wallClock = wallClock
        hub = EventHub(name: name, ringCapacity: configuration.eventRingCapacity)
        machine = Guarded(
            CircuitBreakerMachine(
                policy: CircuitBreakerPolicy(configuration, hasRecovery: recovery != nil, hasHealthCheck: healthCheck != nil),
                startsInRecovery: startsInRecovery,
                seed: seed ?? UInt64.random(in: .min ... .max),
                at: clock.now()
            )
        )
        let recoveryStep = recovery.map { recovery in
            TimedStep(clock: clock, limit: configuration.recoveryTimeLimit, operation: recovery) { [weak self] run, end in
                self?.recoveryStepEnded(run: run, end)
            }
        }
        let checkStep = healthCheck.map { check in
            TimedStep(clock: clock, limit: configuration.healthCheckTimeLimit, operation: { if await !check() { throw Unhealthy() } }) {
                [weak self] run, end in self?.healthCheckEnded(run: run, end)
            }
        }
        steps.withLock { $0 = (recoveryStep, checkStep) }
        if startsInRecovery, recovery != nil { step { (_, _) in .startRecovery(run: 1) } }
    }

    private struct Unhealthy: Error {}

    deinit {
        shutdown()
    }

    /// Stops what runs in the background (the recovery, the health check, the timer) and ends the event sequences. The state stays as it
    /// is; calls are admitted and recorded as before, but a recovery is no longer started. Can be called more than once.
    public func shutdown() {
        let task = timer.withLock { timer in
            timer.isShutDown = true
            defer { timer.task = nil }
            return timer.task
        }
        task?.cancel()
        let steps = steps.withLock { $0 }
        steps.recovery?.cancel(through: .max)
        steps.healthCheck?.cancel(through: .max)
        hub.finish()
    }

    // MARK: Calls

    /// Asks whether a call may be made now.
    ///
    /// A closed breaker takes a lock that threads rarely share, and during the ramp one that all share. One that is open, opened by hand, disabled, or behind
    /// its recovery takes no lock. A closed breaker allocates nothing.
    public func admit() -> Admission { admit(atNanoseconds: clock.now()) }

    /// Asks whether a call may be made at `instant`, for a caller that has read the breaker's clock already.
    public func admit(at instant: CircuitBreakerInstant) -> Admission { admit(atNanoseconds: instant.nanoseconds) }

    private func admit(atNanoseconds now: Int64) -> Admission {
        let stripe = Stripes.mine
        let code = shortcut.load(ordering: .acquiring)
        if code == Shortcut.free {
            if let permit = stripes.start(at: now, in: stripe) { return .permitted(permit) }
        } else if code != Shortcut.none {
            if code == Shortcut.disabled { return .permitted(.unrecorded(at: now)) }
            if now < rejectsUntil.load(ordering: .relaxed) {
                unabsorbedRejections.add(1, ordering: .relaxed)
                switch code {
                case Shortcut.open:
                    let remaining = max(openUntil.load(ordering: .relaxed) &- now, 0)
                    return .rejected(Rejection(state: .open, reason: .open, retryAfterNanoseconds: remaining))
                case Shortcut.forcedOpen:
                    return .rejected(Rejection(state: .forcedOpen, reason: .forcedOpen))
                default:
                    return .rejected(Rejection(state: .halfOpen, reason: .recovery))
                }
            }
        }
        // Nil rather than empty: an empty array is a reference to count.
        var deliveries: [EventHub.Delivery]?
        var step: (Admission, CircuitBreakerMachine.Action) = (.permitted(.unrecorded(at: now)), .none)
        machine.withLockSpinningFirst { machine in
            endFreePeriod(&machine)
            step = machine.admit(at: now)
            if case .none = step.1 { return beginFreePeriod(machine, at: now, for: stripe) }
            deliveries = publish(&machine, at: now)
        }
        if let deliveries { perform(step.1, deliveries) }
        return step.0
    }

    /// Says how a permitted call ended. Its duration is the time since it was admitted. Late and repeated results change nothing.
    @discardableResult
    public func record(_ outcome: CallOutcome, for permit: Permit) -> RecordResult {
        if permit.generation == 0 { return .notRecorded }
        return record(outcome, for: permit, at: CircuitBreakerInstant(nanoseconds: clock.now()))
    }

    /// Says how a permitted call ended at `instant`, for a caller that has read the breaker's clock already.
    @discardableResult
    public func record(_ outcome: CallOutcome, for permit: Permit, at instant: CircuitBreakerInstant) -> RecordResult {
        let now = instant.nanoseconds
        let stripe = Stripes.mine
        if case .success = outcome, shortcut.load(ordering: .acquiring) == Shortcut.free, stripes.succeed(permit, at: now, in: stripe) {
            return .counted
        }
        var deliveries: [EventHub.Delivery]?
        var step: (RecordResult, CircuitBreakerMachine.Action) = (.late, .none)
        machine.withLockSpinningFirst { machine in
            endFreePeriod(&machine)
            step = machine.record(outcome, for: permit, at: now)
            if case .none = step.1 { return beginFreePeriod(machine, at: now, for: stripe) }
            calmSteps.store(0, ordering: .relaxed)
            deliveries = publish(&machine, at: now)
        }
        if let deliveries { perform(step.1, deliveries) }
        return step.0
    }

    /// Tells the machine of the free period's calls, if there is one, and ends it. With the lock held.
    @inline(__always)
    func endFreePeriod(_ machine: inout CircuitBreakerMachine) {
        guard shortcut.load(ordering: .relaxed) == Shortcut.free else { return }
        shortcut.store(Shortcut.none, ordering: .relaxed)
        machine.absorb(stripes.end())
    }

    /// Begins a free period if the machine has one. With the lock held.
    @inline(__always)
    func beginFreePeriod(_ machine: borrowing CircuitBreakerMachine, at now: Int64, for stripe: Int? = nil) {
        let calm = calmSteps.load(ordering: .relaxed)
        guard calm >= Self.calmStepsBeforeFreePeriod else { return calmSteps.store(calm + 1, ordering: .relaxed) }
        guard let period = machine.freePeriod(around: now) else { return }
        if let stripe { stripes.activate(stripe) }
        stripes.begin(period)
        shortcut.store(Shortcut.free, ordering: .releasing)
    }

    // MARK: By hand

    /// Changes the state by hand.
    /// - Parameters:
    ///   - manual: what is asked for.
    ///   - by: who asks, for the event. Cut at 200 bytes.
    ///   - reason: why, for the event. Cut at 200 bytes.
    /// - Returns: the state afterwards: ``CircuitBreakerState/halfOpen`` when closing goes through the recovery.
    @discardableResult
    public func transition(to manual: ManualTransition, by: String? = nil, reason: String? = nil) -> CircuitBreakerState {
        step { machine, now in machine.transition(to: manual, by: by, reason: reason, at: now) }
    }

    // MARK: Looking

    /// The present state. Looking at it changes nothing: an open breaker whose wait is over is open until the next call.
    public var state: CircuitBreakerState { machine.withLock { $0.state } }

    /// The breaker's clock: the present time.
    public func now() -> CircuitBreakerInstant { CircuitBreakerInstant(nanoseconds: clock.now()) }

    /// All figures, consistent with each other. Changes nothing.
    public func snapshot() -> CircuitBreakerSnapshot {
        let now = clock.now()
        let unixMilliseconds = wallClock()
        let events = hub.losses
        let (machine, unabsorbed, calls) = machine.withLock { machine in
            let isFree = shortcut.load(ordering: .relaxed) == Shortcut.free
            return (machine, unabsorbedRejections.load(ordering: .relaxed), isFree ? stripes.sum() : nil)
        }
        // What the machine has not been told of yet is counted in a copy. The breaker's own events and figures stay as they are.
        var copy = machine
        if let calls { copy.absorb(calls) }
        copy.absorbRejections(unabsorbed, at: now)
        var snapshot = copy.snapshot(name: name, unixMilliseconds: unixMilliseconds, at: now)
        snapshot.droppedEvents = events.dropped
        snapshot.refusedSubscriptions = events.refused
        return snapshot
    }

    /// The last events, oldest first: at most ``CircuitBreakerConfiguration/Values/eventRingCapacity`` about the breaker and as many about single calls.
    public func recentEvents() -> [CircuitBreakerEvent] { hub.recent() }

    /// The events from now on, with a buffer of 1,024 for this reader.
    public var events: CircuitBreakerEvents { events(bufferCapacity: 1_024) }

    /// The events from now on, with a buffer of this reader's own (1 to 100,000 events; other numbers are brought into that range). At most 256
    /// readers are served at a time; a sequence beyond them ends at once and is counted in the snapshot.
    public func events(bufferCapacity: Int) -> CircuitBreakerEvents {
        CircuitBreakerEvents(hub.subscribe(capacity: min(max(bufferCapacity, 1), 100_000)))
    }
}
