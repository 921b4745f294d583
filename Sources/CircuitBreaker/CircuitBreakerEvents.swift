// Events go from the breaker into two rings (changes; calls) and into a buffer for each subscriber.
//
// Invariant: every subscriber sees events in the order of their sequence numbers; an event is either seen by it or counted as dropped.
// Bounds: the rings' and the buffers' capacities, and `maximumSubscribers`. A full ring or buffer drops its oldest event and counts it. A subscription beyond
// the bound gets a sequence that ends at once, and is counted.

import Synchronization

/// A breaker's events from the moment this was asked for, for one reader.
///
/// ```swift
/// let events = breaker.events
/// for await event in events { print(event.kind) }
/// print("missed \(events.dropped) events")
/// ```
///
/// Events that come faster than they are read wait in a buffer; when it is full the oldest is dropped and counted. The sequence ends when the
/// breaker is shut down or the reading task is cancelled. Iterators of one sequence share its buffer; ask the breaker for another to have one's
/// own. One `next()` may wait at a time, a second one gets nil.
public struct CircuitBreakerEvents: AsyncSequence, Sendable {
    /// What the sequence is of.
    public typealias Element = CircuitBreakerEvent
    /// Nothing is thrown.
    public typealias Failure = Never

    private let subscription: EventSubscription

    init(_ subscription: EventSubscription) {
        self.subscription = subscription
    }

    /// Events this reader's full buffer has dropped so far.
    public var dropped: UInt64 { subscription.dropped }

    /// A reader of the sequence.
    public func makeAsyncIterator() -> Iterator { Iterator(subscription: subscription) }

    /// A reader of the sequence.
    public struct Iterator: AsyncIteratorProtocol {
        let subscription: EventSubscription

        /// The next event, nil when there will be none.
        public mutating func next() async -> CircuitBreakerEvent? { await subscription.next() }

        /// The next event, nil when there will be none.
        public mutating func next(isolation actor: isolated (any Actor)?) async -> CircuitBreakerEvent? { await subscription.next() }
    }
}

/// One reader's place in the hub. The reader leaves the hub when this is released.
final class EventSubscription: Sendable {
    private let hub: EventHub
    private let id: UInt64

    init(hub: EventHub, id: UInt64) {
        self.hub = hub
        self.id = id
    }

    deinit {
        hub.unsubscribe(id)
    }

    var dropped: UInt64 { hub.dropped(by: id) }

    func next() async -> CircuitBreakerEvent? {
        let ticket = hub.takeTicket()
        return await withTaskCancellationHandler {
            await withCheckedContinuation { hub.wait(id, ticket: ticket, continuation: $0) }
        } onCancel: {
            hub.cancel(id, ticket: ticket)
        }
    }
}

/// A fixed number of the last values.
struct EventRing: Sendable {
    private var values: [CircuitBreakerEvent?]
    private var first = 0
    private(set) var count = 0

    init(capacity: Int) {
        values = Array(repeating: nil, count: capacity)
    }

    /// Returns whether the oldest had to go.
    mutating func append(_ event: CircuitBreakerEvent) -> Bool {
        var index = first + count
        if index >= values.count { index -= values.count }
        values[index] = event
        guard count == values.count else {
            count += 1
            return false
        }
        first = first + 1 == values.count ? 0 : first + 1
        return true
    }

    mutating func popFirst() -> CircuitBreakerEvent? {
        guard count > 0 else { return nil }
        defer {
            values[first] = nil
            first = first + 1 == values.count ? 0 : first + 1
            count -= 1
        }
        return values[first]
    }

    /// Oldest first.
    var elements: [CircuitBreakerEvent] {
        (0..<count).compactMap { values[(first + $0) % values.count] }
    }
}

/// Where a breaker's events go.
final class EventHub: Sendable {
    static let maximumSubscribers = 256

    /// A waiting reader and what it is to be given, once no lock is held.
    typealias Delivery = (CheckedContinuation<CircuitBreakerEvent?, Never>, CircuitBreakerEvent?)

    private struct Subscriber {
        let id: UInt64
        var buffer: EventRing
        var dropped: UInt64 = 0
        var waiter: (ticket: UInt64, continuation: CheckedContinuation<CircuitBreakerEvent?, Never>)?
        /// The ticket of a wait that was cancelled before it began.
        var cancelledTicket: UInt64 = 0
    }

    private struct State {
        var sequence: UInt64 = 0
        var changes: EventRing
        var calls: EventRing
        /// Gone through by index: an iteration over the values would hold a second reference, and every event would copy every buffer.
        var subscribers: [Subscriber] = []
        var lastID: UInt64 = 0
        var dropped: UInt64 = 0
        var refused: UInt64 = 0
        var isFinished = false

        func index(of id: UInt64) -> Int? { subscribers.firstIndex { $0.id == id } }
    }

    private let name: String
    private let state: Guarded<State>
    private let tickets = Atomic<UInt64>(1)

    init(name: String, ringCapacity: Int) {
        self.name = name
        state = Guarded(State(changes: EventRing(capacity: ringCapacity), calls: EventRing(capacity: ringCapacity)))
    }

    /// Keeps the event, and returns the readers that waited for it.
    func append(_ kind: CircuitBreakerEvent.Kind, instant: Int64, unixMilliseconds: Int64) -> [Delivery] {
        state.withLock { state in
            state.sequence += 1
            let event = CircuitBreakerEvent(
                breaker: name,
                sequence: state.sequence,
                instant: CircuitBreakerInstant(nanoseconds: instant),
                unixMilliseconds: unixMilliseconds,
                kind: kind
            )
            _ = kind.isAboutCalls ? state.calls.append(event) : state.changes.append(event)
            guard !state.subscribers.isEmpty, !state.isFinished else { return [] }
            var deliveries: [Delivery] = []
            for index in state.subscribers.indices {
                if let waiter = state.subscribers[index].waiter {
                    state.subscribers[index].waiter = nil
                    deliveries.append((waiter.continuation, event))
                } else if state.subscribers[index].buffer.append(event) {
                    state.subscribers[index].dropped += 1
                    state.dropped += 1
                }
            }
            return deliveries
        }
    }

    /// The kept events of both rings, oldest first.
    func recent() -> [CircuitBreakerEvent] {
        state.withLock { ($0.changes.elements + $0.calls.elements).sorted { $0.sequence < $1.sequence } }
    }

    var losses: (dropped: UInt64, refused: UInt64) { state.withLock { ($0.dropped, $0.refused) } }

    func subscribe(capacity: Int) -> EventSubscription {
        let id: UInt64 = state.withLock { state in
            guard !state.isFinished else { return 0 }
            guard state.subscribers.count < Self.maximumSubscribers else {
                state.refused += 1
                return 0
            }
            state.lastID += 1
            state.subscribers.append(Subscriber(id: state.lastID, buffer: EventRing(capacity: capacity)))
            return state.lastID
        }
        return EventSubscription(hub: self, id: id)
    }

    func unsubscribe(_ id: UInt64) {
        let waiter = state.withLock { state in state.index(of: id).flatMap { state.subscribers.remove(at: $0).waiter } }
        waiter?.continuation.resume(returning: nil)
    }

    func dropped(by id: UInt64) -> UInt64 { state.withLock { state in state.index(of: id).map { state.subscribers[$0].dropped } ?? 0 } }

    func takeTicket() -> UInt64 { tickets.wrappingAdd(1, ordering: .relaxed).newValue }

    func wait(_ id: UInt64, ticket: UInt64, continuation: CheckedContinuation<CircuitBreakerEvent?, Never>) {
        enum Step {
            case wait
            case answer(CircuitBreakerEvent?)
        }
        let step: Step = state.withLock { state in
            guard let index = state.index(of: id) else { return .answer(nil) }
            if let event = state.subscribers[index].buffer.popFirst() { return .answer(event) }
            guard !state.isFinished, state.subscribers[index].waiter == nil, state.subscribers[index].cancelledTicket != ticket else {
                return .answer(nil)
            }
            state.subscribers[index].waiter = (ticket, continuation)
            return .wait
        }
        if case .answer(let event) = step { continuation.resume(returning: event) }
    }

    func cancel(_ id: UInt64, ticket: UInt64) {
        let waiter = state.withLock { state -> CheckedContinuation<CircuitBreakerEvent?, Never>? in
            guard let index = state.index(of: id) else { return nil }
            guard let waiter = state.subscribers[index].waiter, waiter.ticket == ticket else {
                state.subscribers[index].cancelledTicket = ticket
                return nil
            }
            state.subscribers[index].waiter = nil
            return waiter.continuation
        }
        waiter?.resume(returning: nil)
    }

    /// Ends every subscription once it has read its buffer.
    func finish() {
        let waiters = state.withLock { state -> [CheckedContinuation<CircuitBreakerEvent?, Never>] in
            state.isFinished = true
            var waiters: [CheckedContinuation<CircuitBreakerEvent?, Never>] = []
            for index in state.subscribers.indices {
                if let waiter = state.subscribers[index].waiter { waiters.append(waiter.continuation) }
                state.subscribers[index].waiter = nil
            }
            return waiters
        }
        for waiter in waiters { waiter.resume(returning: nil) }
    }
}
