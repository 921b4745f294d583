import APIErrors
import Eventually
import PostgresClient
import SeededRandom
import ServerKit
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

/// The machine alone: every event, with a clock that is an argument.
@Suite("Order waiters")
struct OrderWaitersTests {
    private let start = ContinuousClock.now

    private func machine(places: Int = 10, batch: Int = 10) -> OrderWaiters {
        OrderWaiters(maximumPlaces: places, batch: batch, interval: .milliseconds(50))
    }

    private func at(_ milliseconds: Int) -> ContinuousClock.Instant { start + .milliseconds(milliseconds) }

    @Test("a waiter is looked up at once and answered by a newer version alone")
    func register() throws {
        var machine = self.machine()
        let begun = try machine.begin(for: 7, after: 1, until: at(1_000))
        #expect(begun.next == OrderWaiters.Next(lookup: [.init(order: 7, seen: 1)], startsTicks: true))
        #expect(machine.found([]).answered.isEmpty)
        #expect(machine.waiting == 1)
        #expect(machine.changed([7, 8]).lookup == [.init(order: 7, seen: 1)])
        #expect(machine.found([(order: 7, version: 1)]).answered.isEmpty)
        #expect(machine.changed([7]).lookup.count == 1)
        let answered = machine.found([(order: 8, version: 9), (order: 7, version: 2)]).answered
        #expect(answered.map(\.id) == [begun.id])
        #expect(answered.map(\.index) == [1])
        #expect(machine.waiting == 0)
        #expect(machine.tick(now: at(10)).goesOn == false)
    }

    @Test("a change while a look-up is out is looked up again behind it")
    func changeDuringLookup() throws {
        var machine = self.machine()
        _ = try machine.begin(for: 7, after: 1, until: at(1_000))
        #expect(machine.changed([7]).lookup == [])
        #expect(machine.found([]).next.lookup == [.init(order: 7, seen: 1)])
        #expect(machine.found([]).next.lookup == [])
    }

    @Test("several waiters for one order are answered together; the one that has seen it waits on; a second wake answers nobody")
    func several() throws {
        var machine = self.machine()
        let first = try machine.begin(for: 7, after: 1, until: at(1_000))
        let second = try machine.begin(for: 7, after: 2, until: at(1_000))
        #expect(second.next.startsTicks == false)
        #expect(machine.found([]).next.lookup == [.init(order: 7, seen: 1)])
        #expect(machine.found([(order: 7, version: 2)]).answered.map(\.id) == [first.id])
        #expect(machine.changed([7]).lookup == [.init(order: 7, seen: 2)])
        #expect(machine.found([(order: 7, version: 3)]).answered.map(\.id) == [second.id])
        #expect(machine.changed([7]).lookup == [])
        #expect(machine.found([(order: 7, version: 3)]).answered.isEmpty)
    }

    @Test("a time that is over is told once, at the first tick behind it")
    func timeout() throws {
        var machine = self.machine()
        let early = try machine.begin(for: 7, after: 1, until: at(100))
        let late = try machine.begin(for: 8, after: 1, until: at(200))
        #expect(machine.tick(now: at(99)).expired == [])
        let tick = machine.tick(now: at(100))
        #expect(tick.expired == [early.id])
        #expect(tick.goesOn)
        #expect(machine.cancel(early.id) == false)
        let last = machine.tick(now: at(200))
        #expect(last.expired == [late.id])
        #expect(last.goesOn == false)
        // Ticks begin again with the next waiter.
        #expect(machine.wait(for: 9, after: 1, until: at(900))?.next.startsTicks == true)
    }

    @Test("a cancelled waiter is gone, and its order is not looked up")
    func cancel() throws {
        var machine = self.machine()
        let begun = try machine.begin(for: 7, after: 1, until: at(1_000))
        _ = machine.found([])
        #expect(machine.cancel(begun.id) == true)
        #expect(machine.cancel(begun.id) == false)
        #expect(machine.changed([7]).lookup == [])
        #expect(machine.tick(now: at(60)).lookup == [])
    }

    @Test("places are bounded, and come back")
    func overflow() {
        var machine = self.machine(places: 2)
        #expect(machine.enter() == true)
        #expect(machine.enter() == true)
        #expect(machine.enter() == false)
        machine.leave()
        #expect(machine.enter() == true)
        #expect(machine.places == 2)
    }

    @Test("the shutdown answers everybody once and takes nobody")
    func close() throws {
        var machine = self.machine()
        let begun = try machine.begin(for: 7, after: 1, until: at(1_000))
        #expect(machine.close() == [begun.id])
        #expect(machine.close() == [])
        #expect(machine.found([(order: 7, version: 2)]).answered.isEmpty)
        #expect(machine.wait(for: 7, after: 1, until: at(1_000)) == nil)
        #expect(machine.enter() == false)
    }

    @Test("sweeps are an interval apart, one look-up at a time, each order once in a turn")
    func sweeps() throws {
        var machine = self.machine(places: 100, batch: 4)
        for order in Int64(1)...10 { _ = try machine.begin(for: order, after: 0, until: at(10_000)) }
        // All ten begin: the first alone, the others behind it in batches.
        var dueAtOnce = machine.found([]).next.lookup
        var looked: [Int64] = []
        while !dueAtOnce.isEmpty {
            #expect(dueAtOnce.count <= 4)
            looked += dueAtOnce.map(\.order)
            dueAtOnce = machine.found([]).next.lookup
        }
        #expect(looked.sorted() == Array(2...10))
        var swept: [Int64] = []
        for round in 0..<3 {
            let lookup = machine.tick(now: at(100 + round * 50)).lookup
            // While it is out nothing else is looked up, and too early nothing is.
            #expect(machine.tick(now: at(110 + round * 50)).lookup == [])
            swept += lookup.map(\.order)
            #expect(machine.found([]).next.lookup == [])
            #expect(machine.tick(now: at(120 + round * 50)).lookup == [])
        }
        #expect(swept.count <= 12)
        #expect(Set(swept) == Set(1...10))
    }

    @Test("a look-up that failed is made again by a sweep, not at once")
    func failure() throws {
        var machine = self.machine()
        _ = try machine.begin(for: 7, after: 1, until: at(1_000))
        machine.lookupFailed()
        #expect(machine.tick(now: at(50)).lookup == [.init(order: 7, seen: 1)])
        machine.lookupFailed()
        #expect(machine.tick(now: at(60)).lookup == [])
        #expect(machine.tick(now: at(100)).lookup == [.init(order: 7, seen: 1)])
    }

    @Test("whatever happens, each waiter is answered exactly once", arguments: [UInt64(1), 2, 3, 4, 5, 6, 7, 8])
    func property(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var machine = self.machine(places: 1_000, batch: 3)
        var versions: [Int64: Int64] = [:]
        var waiting: [OrderWaiters.ID: (order: Int64, seen: Int64)] = [:]
        var out: [OrderWaiters.Wanted]?
        var now = 0
        func take(_ lookup: [OrderWaiters.Wanted]) {
            guard !lookup.isEmpty else { return }
            #expect(out == nil)
            #expect(lookup.count <= 3)
            out = lookup
        }
        for _ in 0..<3_000 {
            let order = Int64.random(in: 1...12, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0:
                let seen = versions[order] ?? 0
                guard let begun = machine.wait(for: order, after: seen, until: at(now + Int.random(in: 0...400, using: &random)))
                else { continue }
                waiting[begun.id] = (order, seen)
                take(begun.next.lookup)
            case 1:
                versions[order, default: 0] += 1
                if Bool.random(using: &random) { take(machine.changed([order]).lookup) }
            case 2:
                if let id = waiting.keys.min(), Bool.random(using: &random) {
                    #expect(machine.cancel(id) == true)
                    waiting[id] = nil
                }
            case 3:
                now += 20
                let (expired, lookup, _) = machine.tick(now: at(now))
                for id in expired { #expect(waiting.removeValue(forKey: id) != nil) }
                take(lookup)
            default:
                guard let wanted = out else { continue }
                out = nil
                if Int.random(in: 0..<5, using: &random) == 0 {
                    machine.lookupFailed()
                    continue
                }
                let found = wanted.compactMap { wanted in
                    (versions[wanted.order] ?? 0) > wanted.seen ? (order: wanted.order, version: versions[wanted.order] ?? 0) : nil
                }
                let (answered, next) = machine.found(found)
                for (id, index) in answered {
                    let waiter = waiting.removeValue(forKey: id)
                    #expect(waiter?.order == found[index].order)
                    #expect((waiter?.seen ?? .max) < found[index].version)
                }
                take(next.lookup)
            }
            #expect(machine.waiting == waiting.count)
        }
        // The changes stop: all that have one are answered, the others run out of time.
        for _ in 0..<200 {
            if let wanted = out {
                out = nil
                let found = wanted.compactMap {
                    (versions[$0.order] ?? 0) > $0.seen ? (order: $0.order, version: versions[$0.order] ?? 0) : nil
                }
                let (answered, next) = machine.found(found)
                for (id, _) in answered { #expect(waiting.removeValue(forKey: id) != nil) }
                take(next.lookup)
            }
            now += 50
            let (expired, lookup, _) = machine.tick(now: at(now))
            for id in expired { #expect(waiting.removeValue(forKey: id) != nil) }
            take(lookup)
        }
        #expect(waiting.isEmpty)
        #expect(machine.waiting == 0)
    }

}

/// The shell, over a store that is a dictionary.
@Suite("Order changes", .timeLimit(.minutes(10)))
struct OrderWatchTests {
    private final class Store: Sendable {
        struct State {
            var versions: [Int64: Int64] = [:]
            var sizes: [Int] = []
            var fails = false
        }
        let state = Mutex(State())

        func look(_ wanted: [OrderWaiters.Wanted]) throws(PostgresError) -> [VersionedOrder] {
            let found: [VersionedOrder]? = self.state.withLock { state in
                state.sizes.append(wanted.count)
                if state.fails { return nil }
                return wanted.compactMap { wanted in
                    guard let version = state.versions[wanted.order], version > wanted.seen else { return nil }
                    return VersionedOrder(order: .sample(wanted.order, version == 1 ? .pending : .confirmed), version: version)
                }
            }
            guard let found else { throw PostgresError(code: .connectFailed, message: "down") }
            return found
        }
    }

    private func changes(_ store: Store, places: Int = 100, interval: Duration = .milliseconds(10)) -> OrderWatch {
        OrderWatch(maximumWaiters: places, batch: 50, interval: interval) { (wanted) throws(PostgresError) in try store.look(wanted) }
    }

    @Test("a change of this server wakes without a sweep; nobody waiting costs nothing")
    func own() async throws {
        let store = Store()
        let changes = self.changes(store, interval: .seconds(30))
        changes.changed([1])
        #expect(store.state.withLock { $0.sizes } == [])
        let place = try changes.place()
        let wait = Task { await place.next(order: 1, after: 1, within: .seconds(20)) }
        while store.state.withLock({ $0.sizes.isEmpty }) { await Task.yield() }
        store.state.withLock { $0.versions[1] = 2 }
        changes.changed([1])
        #expect(await wait.value == .changed(VersionedOrder(order: .sample(1, .confirmed), version: 2)))
    }

    @Test("changes of others are found by one statement for many; trouble of the database is survived")
    func others() async throws {
        let store = Store()
        let changes = self.changes(store)
        let place = try changes.place()
        store.state.withLock { $0.fails = true }
        async let all = withTaskGroup(of: OrderWatch.Outcome.self) { group in
            for order in Int64(1)...40 { group.addTask { await place.next(order: order, after: 1, within: .seconds(20)) } }
            return await group.reduce(into: 0) { if case .changed = $1 { $0 += 1 } }
        }
        try await eventually("a look at forty", every: .milliseconds(1)) { store.state.withLock { $0.sizes.max() ?? 0 >= 40 } }
        store.state.withLock { state in
            state.fails = false
            for order in Int64(1)...40 { state.versions[order] = 2 }
        }
        #expect(await all == 40)
        #expect(changes.failedLookups.value > 0)
        // No more look-ups without anybody who waits.
        let made = changes.lookups.value
        try await Task.sleep(for: .milliseconds(50))
        #expect(changes.lookups.value == made)
    }

    @Test("timeout, cancellation, shutdown")
    func ends() async throws {
        let changes = self.changes(Store())
        let place = try changes.place()
        #expect(await place.next(order: 1, after: 1, within: .milliseconds(20)) == .timedOut)
        let cancelled = Task { await place.next(order: 1, after: 1, within: .seconds(20)) }
        cancelled.cancel()
        #expect(await cancelled.value == .cancelled)
        let stopped = Task { await place.next(order: 1, after: 1, within: .seconds(20)) }
        changes.shutdown()
        #expect(await stopped.value == .stopped)
        #expect(await place.next(order: 1, after: 1, within: .seconds(20)) == .stopped)
    }

    @Test("a place is OVERLOADED beyond the bound, and free again when it is let go of")
    func places() throws {
        let changes = self.changes(Store(), places: 1)
        do {
            let place = try changes.place()
            #expect(throws: APIError(.overloaded, retryAfter: .seconds(1))) { try changes.place() }
            withExtendedLifetime(place) {}
        }
        #expect(changes.places == 0)
        #expect(changes.refused.value == 1)
        _ = try changes.place()
    }
}

extension OrderWaiters {
    struct Refused: Error {}

    /// A wait that must be taken.
    fileprivate mutating func begin(for order: Int64, after seen: Int64, until deadline: ContinuousClock.Instant) throws -> (
        id: ID, next: Next
    ) {
        guard let begun = wait(for: order, after: seen, until: deadline) else { throw Refused() }
        return begun
    }
}

extension Order {
    static func sample(_ id: Int64, _ status: OrderStatus) -> Order {
        let time = Timestamp(microsecondsSinceEpoch: 1_769_851_800_123_456 + id % 1_000_000)
        return Order(
            id: id,
            productID: 1,
            productCode: nil,
            buyerID: "u-\(id)",
            quantity: 3,
            unitPrice: nil,
            status: status,
            failReason: status == .failed ? "INSUFFICIENT_STOCK" : nil,
            idempotencyKey: nil,
            run: 1,
            cancelRequestedAt: nil,
            cancelKey: nil,
            createdAt: time,
            updatedAt: time
        )
    }
}
