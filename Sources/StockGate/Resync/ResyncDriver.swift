// Carries out resyncs, many products in one round: one pipelined look, one bump statement, one pipelined install.
//
// Fate: a product whose row is locked, whose row or whose keys cannot be used, fails alone. The statement of a round waits for no row; a product whose
//   row was locked is tried again beside the rounds, where it holds up nobody. What waits for a product that is sold directly never goes before what
//   is sold through Redis.
// Bounds: `chunk` products a round; each product's own bounds are its machine's. What waits is at most one entry a product (its schedule). At most
//   `maximumLockWaits` statements wait for a row, each for `lockWait`.
// Stop: every machine of the round has finished.

import DequeModule
import NIOCore
import PostgresClient
import Synchronization

final class ResyncDriver: Sendable {
    typealias Ended = @Sendable (ResyncResult) -> Void

    /// For how long a statement waits for one product's row. Long enough for the queue behind a hot row's group commits.
    static let lockWait: Duration = .seconds(1)
    /// How many statements wait for a row at a time: they take connections of the ledger's pool.
    static let maximumLockWaits = 3
    /// Between two looks at a locked row whose fence is to be raised above Redis'.
    static let raisePause: Duration = .milliseconds(20)

    /// A product and how it is resynced.
    struct Entry: Sendable {
        var id: ProductID
        /// Whether to install even if nothing looks wrong.
        var isForced: Bool
        /// Whether to make its keys anew first.
        var isMended = false
    }

    private struct Waiting: Sendable {
        var product: GatedProduct
        var isForced: Bool
        var ended: Ended
    }

    private struct Queues: Sendable {
        var urgent: Deque<Waiting> = []
        var patient: Deque<Waiting> = []
        var lockWaits = 0

        /// What is sold directly gets an eighth of a round at least, or it would wait for ever.
        mutating func next(_ count: Int) -> [Waiting] {
            let reserved = min(patient.count, max(1, count / 8))
            var round: [Waiting] = []
            while round.count < max(1, count - reserved), let one = urgent.popFirst() { round.append(one) }
            while round.count < count, let one = patient.popFirst() { round.append(one) }
            return round
        }
    }

    private let ledger: PostgresLedger
    private let gates: [RedisGate]
    private let counters: EngineCounters
    private let chunk: Int
    private let name = Mutex("")
    private let queues = Mutex(Queues())
    private let signal: AsyncStream<Void>
    private let wake: AsyncStream<Void>.Continuation

    init(ledger: PostgresLedger, gates: [RedisGate], counters: EngineCounters, chunk: Int) {
        self.ledger = ledger
        self.gates = gates
        self.counters = counters
        self.chunk = max(1, chunk)
        (self.signal, self.wake) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    }

    /// The name of the ledger; empty until it is known, and where it has none.
    var ledgerName: String { name.withLock { $0 } }

    /// Has every gate serve this ledger, from the next call on.
    func serve(ledger: String) {
        name.withLock { $0 = ledger }
        for gate in gates { gate.eventLoop.execute { gate.serve(ledger: ledger) } }
    }

    /// Adds a product to a next round. `isPatient`: others go first.
    func enqueue(_ product: GatedProduct, forced: Bool, isPatient: Bool, ended: @escaping Ended) {
        let waiting = Waiting(product: product, isForced: forced, ended: ended)
        queues.withLock { if isPatient { $0.patient.append(waiting) } else { $0.urgent.append(waiting) } }
        wake.yield()
    }

    /// Runs rounds until the task is cancelled. `isUsed`: whether products are resynced now; if not, a recovery does it, and those that wait here end untried.
    func run(while isUsed: @escaping @Sendable () -> Bool) async {
        for await _ in signal {
            while !Task.isCancelled {
                let round = queues.withLock { $0.next(chunk) }
                if round.isEmpty { break }
                guard isUsed() else {
                    for waiting in round { waiting.ended(.untried) }
                    continue
                }
                let results = await resync(round.map(Self.entry))
                for waiting in round {
                    let result = results[waiting.product.id] ?? .untried
                    if result.failure?.scope == .locked, beginsLockWait() {
                        waitForRow(waiting)
                    } else {
                        waiting.ended(result)
                    }
                }
            }
        }
    }

    private static func entry(_ waiting: Waiting) -> Entry {
        Entry(
            id: waiting.product.id,
            isForced: waiting.isForced,
            isMended: waiting.product.state.withLock { $0.standing.isSpoiled }
        )
    }

    private func beginsLockWait() -> Bool {
        queues.withLock { queues in
            guard queues.lockWaits < Self.maximumLockWaits else { return false }
            queues.lockWaits += 1
            return true
        }
    }

    /// Tries one product again, beside the rounds, and waits for its row.
    private func waitForRow(_ waiting: Waiting) {
        Task {
            let results = await resync([Self.entry(waiting)], lockWaitsUntil: .now + Self.lockWait)
            queues.withLock { $0.lockWaits -= 1 }
            waiting.ended(results[waiting.product.id] ?? .untried)
        }
    }

    // MARK: One round

    /// Resyncs these products together. Each has a result in the answer.
    /// - Parameter lockWaitsUntil: products whose rows are locked are waited for one by one until then; nil: they fail as `locked` at once.
    func resync(_ entries: [Entry], lockWaitsUntil: ContinuousClock.Instant? = nil) async -> [ProductID: ResyncResult] {
        var results = await round(entries, lockWaitsUntil)
        // Keys that cannot be used are made anew, once; the ledger has all that they held.
        let spoiled = entries.filter { results[$0.id]?.failure?.scope == .keys && !$0.isMended }
        if !spoiled.isEmpty {
            let again = spoiled.map { Entry(id: $0.id, isForced: true, isMended: true) }
            results.merge(await round(again, lockWaitsUntil)) { $1 }
        }
        for result in results.values {
            switch result.outcome {
            case .installed, .newer: counters.resyncs.add(1)
            case .notNeeded, .productMissing, .foreign: counters.resyncsNotNeeded.add(1)
            case .failed: counters.resyncsFailed.add(1)
            }
        }
        return results
    }

    /// The machines of one round, and why some of them failed.
    private struct Round {
        var machines: [ProductID: Resync] = [:]
        var failures: [ProductID: ResyncFailure] = [:]
        var actions: [(ProductID, Resync.Action)] = []
        var next: [(ProductID, Resync.Action)] = []

        mutating func take(_ id: ProductID, _ event: (inout Resync) -> Resync.Action) {
            guard var machine = machines[id] else { return }
            let action = event(&machine)
            machines[id] = machine
            if action != .finish { next.append((id, action)) }
        }

        mutating func fail(_ id: ProductID, _ failure: ResyncFailure) {
            failures[id] = failure
            take(id) { $0.stepFailed() }
        }
    }

    private func round(_ entries: [Entry], _ lockWaitsUntil: ContinuousClock.Instant?) async -> [ProductID: ResyncResult] {
        var round = Round()
        let broken = await mend(entries.filter(\.isMended).map(\.id))
        for entry in entries where round.machines[entry.id] == nil {
            var machine = Resync(forced: entry.isForced || entry.isMended, ledger: ledgerName)
            let action = machine.began()
            round.machines[entry.id] = machine
            if let failure = broken[entry.id] {
                round.fail(entry.id, failure)
            } else {
                round.actions.append((entry.id, action))
            }
        }
        // Each pass moves every unfinished machine one step on; a machine has a bounded number of steps.
        while !round.actions.isEmpty {
            round.next = []
            await look(&round)
            await readFences(&round)
            await bump(&round, lockWaitsUntil)
            await raise(&round, lockWaitsUntil)
            await install(&round)
            round.actions = round.next
        }
        return round.machines.reduce(into: [:]) { results, entry in
            let outcome = entry.value.outcome ?? .failed
            let failure = outcome == .failed ? round.failures[entry.key] ?? .datasetMoves : nil
            results[entry.key] = ResyncResult(outcome: outcome, failure: failure)
        }
    }

    /// Makes the keys of these products anew. Those of which it failed are in the answer.
    private func mend(_ ids: [ProductID]) async -> [ProductID: ResyncFailure] {
        await tell(ids) { gate, id, answer in gate.mend(GateKeys(id), answer: answer) }
    }

    /// Has Redis serve these products no longer. Those of which it failed are in the answer.
    func void(_ ids: [ProductID]) async -> [ProductID: ResyncFailure] {
        var failures = await tell(ids) { gate, id, answer in gate.void(GateKeys(id), answer: answer) }
        let spoiled = failures.filter { $0.value.scope == .keys }.map(\.key)
        for id in spoiled { failures[id] = nil }
        failures.merge(await mend(spoiled)) { $1 }
        return failures
    }

    private func tell(
        _ ids: [ProductID],
        _ call: @escaping @Sendable (RedisGate, ProductID, @escaping RedisGate.Answer<Int64>) -> Void
    ) async -> [ProductID: ResyncFailure] {
        guard !ids.isEmpty else { return [:] }
        var failures: [ProductID: ResyncFailure] = [:]
        for (id, result) in zip(ids, await pipelined(ids, call)) {
            if case .failure(let failure) = result { failures[id] = ResyncFailure(failure) }
        }
        return failures
    }

    private func look(_ round: inout Round) async {
        let ids = round.actions.compactMap { $0.1 == .look ? $0.0 : nil }
        guard !ids.isEmpty else { return }
        let results = await pipelined(ids) { gate, id, answer in
            gate.look(GateKeys(id), marker: Self.newMarker(), answer: answer)
        }
        for (id, result) in zip(ids, results) {
            switch result {
            case .success(let view): round.take(id) { $0.looked(view) }
            case .failure(let failure): round.fail(id, ResyncFailure(failure))
            }
        }
    }

    private func readFences(_ round: inout Round) async {
        let ids = round.actions.compactMap { $0.1 == .readFence ? $0.0 : nil }
        guard !ids.isEmpty else { return }
        do {
            let states = try await ledger.states(of: ids)
            for id in ids { round.take(id) { $0.fenceRead(states[id]?.fence) } }
        } catch {
            for id in ids { round.fail(id, ResyncFailure(error, isAlone: false)) }
        }
    }

    private func bump(_ round: inout Round, _ lockWaitsUntil: ContinuousClock.Instant?) async {
        let ids = round.actions.compactMap { $0.1 == .bump ? $0.0 : nil }
        guard !ids.isEmpty else { return }
        var alone: [ProductID] = []
        do {
            let (states, locked) = try await ledger.bump(ids, lockWait: .zero)
            for id in ids {
                if locked.contains(id) { alone.append(id) } else { round.take(id) { $0.bumped(states[id]) } }
            }
        } catch  where ResyncFailure.isOfMember(error) {
            // One of them is bad, and the others must not fail for it.
            for id in ids {
                do {
                    let (states, locked) = try await ledger.bump([id], lockWait: .zero)
                    if locked.contains(id) { alone.append(id) } else { round.take(id) { $0.bumped(states[id]) } }
                } catch {
                    round.fail(id, ResyncFailure(error, isAlone: true))
                }
            }
        } catch {
            for id in ids { round.fail(id, ResyncFailure(error, isAlone: false)) }
        }
        guard let lockWaitsUntil else {
            for id in alone { round.fail(id, .locked) }
            return
        }
        for (id, result) in await bumpAlone(alone, until: lockWaitsUntil) {
            switch result {
            case .success(let state): round.take(id) { $0.bumped(state) }
            case .failure(let failure): round.fail(id, failure)
            }
        }
    }

    /// Raises these fences one by one, some at a time, and waits for their rows.
    private func bumpAlone(
        _ ids: [ProductID],
        until end: ContinuousClock.Instant
    ) async -> [(ProductID, Result<Resync.LedgerState?, ResyncFailure>)] {
        typealias One = (ProductID, Result<Resync.LedgerState?, ResyncFailure>)
        return await withTaskGroup(of: One.self) { group in
            var rest = ids[...]
            var results: [One] = []
            func start() {
                guard let id = rest.popFirst() else { return }
                group.addTask { [ledger] in
                    let wait = min(Self.lockWait, end - .now)
                    guard wait >= .milliseconds(1) else { return (id, .failure(.locked)) }
                    do throws(PostgresError) {
                        return (id, .success(try await ledger.bump([id], lockWait: wait).raised[id]))
                    } catch {
                        return (id, .failure(ResyncFailure(error, isAlone: true)))
                    }
                }
            }
            for _ in 0..<Self.maximumLockWaits { start() }
            for await one in group {
                results.append(one)
                start()
            }
            return results
        }
    }

    /// Raises the fences of products that Redis is ahead of. A row that is locked is tried again until `lockWaitsUntil`, for it may be a hot one: its group
    /// commits leave it free between two statements.
    private func raise(_ round: inout Round, _ lockWaitsUntil: ContinuousClock.Instant?) async {
        var waiting: [Raise] = round.actions.compactMap { if case .raise(let above) = $0.1 { ($0.0, above) } else { nil } }
        while !waiting.isEmpty {
            let results = await raised(waiting)
            let goesOn = lockWaitsUntil.map { ContinuousClock.now + Self.raisePause < $0 && !Task.isCancelled } ?? false
            var locked: [Raise] = []
            for raise in waiting {
                switch results[raise.id] ?? .failure(.locked) {
                case .success(let state):
                    counters.raisedAboveRedis.add(1)
                    round.take(raise.id) { $0.raised(state) }
                case .failure(let failure):
                    if failure.scope == .locked, goesOn { locked.append(raise) } else { round.fail(raise.id, failure) }
                }
            }
            waiting = locked
            if !waiting.isEmpty { try? await Task.sleep(for: Self.raisePause) }
        }
    }

    private typealias Raise = (id: ProductID, above: Fence)

    /// One statement for all; where one of them is bad, one for each.
    private func raised(_ raises: [Raise]) async -> [ProductID: Result<Resync.LedgerState, ResyncFailure>] {
        var results: [ProductID: Result<Resync.LedgerState, ResyncFailure>] = [:]
        do {
            let states = try await ledger.raise(raises)
            // The product was in the ledger a step ago: its row is locked, or the next resync finds that it is gone.
            for raise in raises { results[raise.id] = states[raise.id].map { .success($0) } ?? .failure(.locked) }
        } catch  where raises.count > 1 && ResyncFailure.isOfMember(error) {
            for raise in raises { results.merge(await raised([raise])) { $1 } }
        } catch {
            let failure = ResyncFailure(error, isAlone: raises.count == 1 && ResyncFailure.isOfMember(error))
            for raise in raises { results[raise.id] = .failure(failure) }
        }
        return results
    }

    private func install(_ round: inout Round) async {
        let installs: [(ProductID, String, Resync.LedgerState)] = round.actions.compactMap {
            if case .install(let dataset, let ledger) = $0.1 { ($0.0, dataset, ledger) } else { nil }
        }
        guard !installs.isEmpty else { return }
        let results = await pipelined(installs) { gate, install, answer in
            gate.install(GateKeys(install.0), dataset: install.1, install.2, answer: answer)
        }
        for (install, result) in zip(installs, results) {
            switch result {
            case .success(let reply): round.take(install.0) { $0.installReplied(reply) }
            case .failure(let failure): round.fail(install.0, ResyncFailure(failure))
            }
        }
    }

    // MARK: Looks

    /// What Redis holds for one product; nil if it does not answer.
    func look(_ id: ProductID) async -> GateView? {
        let results = await pipelined([id]) { gate, id, answer in gate.look(GateKeys(id), marker: nil, answer: answer) }
        return try? results.first?.get()
    }

    /// One bounded step of the sweep for each product: how many of its reservations are overdue.
    func overdue(
        _ products: [GatedProduct],
        bound: TimeAmount,
        spoiled: (GatedProduct, GateFailure) -> Void
    ) async -> [(GatedProduct, Int64)] {
        let results = await pipelined(products) { gate, product, answer in
            gate.overdue(product.keys, cursor: product.state.withLock { $0.sweepCursor }, bound: bound) { result in
                answer(result.map { OverdueStep(cursor: $0.cursor, overdue: $0.overdue) })
            }
        }
        var overdue: [(GatedProduct, Int64)] = []
        for (product, result) in zip(products, results) {
            switch result {
            case .success(let step):
                product.state.withLock { $0.sweepCursor = step.cursor }
                overdue.append((product, step.overdue))
            case .failure(let failure): if failure.isOfProduct { spoiled(product, failure) }
            }
        }
        return overdue
    }

    /// One bounded step of pruning for each product. Returns those that may have more to prune, and how many marks went.
    func prune(_ products: [ProductID]) async -> (more: [ProductID], pruned: Int64) {
        let results = await pipelined(products) { gate, id, answer in gate.prune(GateKeys(id), answer: answer) }
        var (more, pruned): ([ProductID], Int64) = ([], 0)
        for (id, result) in zip(products, results) {
            guard case .success(let count) = result else { continue }
            pruned += count
            if count >= RedisGate.maximumPruned { more.append(id) }
        }
        return (more, pruned)
    }

    private struct OverdueStep: Sendable {
        let cursor: String
        let overdue: Int64
    }

    /// Reads Redis, PostgreSQL, then Redis again. A product whose two looks differ, or that has reservations pending, is not quiet and is left out.
    func quietLook(
        _ products: [GatedProduct],
        spoiled: (GatedProduct, GateFailure) -> Void
    ) async -> [(GatedProduct, AuditSuspicion?)] {
        func looks() async -> [GateView?] {
            await pipelined(products) { gate, product, answer in gate.look(product.keys, marker: nil, answer: answer) }.map {
                try? $0.get()
            }
        }
        let first = await pipelined(products) { gate, product, answer in gate.look(product.keys, marker: nil, answer: answer) }
        for (product, result) in zip(products, first) {
            if case .failure(let failure) = result, failure.isOfProduct { spoiled(product, failure) }
        }
        let before = first.map { try? $0.get() }
        guard let states = try? await ledger.states(of: products.map(\.id)) else { return [] }
        let after = await looks()
        var findings: [(GatedProduct, AuditSuspicion?)] = []
        for (index, product) in products.enumerated() {
            guard let view = before[index], view == after[index], let state = states[product.id] else { continue }
            if view.foreignLedger(to: ledgerName) != nil {
                findings.append(
                    (
                        product,
                        AuditSuspicion(
                            fence: state.fence,
                            redisFence: view.fence,
                            stock: state.stock,
                            counter: view.counter,
                            isForeign: true
                        )
                    )
                )
                continue
            }
            guard view.pending == 0 else { continue }
            let expected = state.isOnSale ? state.stock : nil
            let isExact = view.isLoaded && view.fence == state.fence && view.counter == expected
            findings.append(
                (
                    product,
                    isExact
                        ? nil : AuditSuspicion(fence: state.fence, redisFence: view.fence, stock: state.stock, counter: view.counter)
                )
            )
        }
        return findings
    }

    // MARK: Pipelining

    private static func newMarker() -> String { String(UInt64.random(in: .min ... .max), radix: 36) }

    /// Sends one call for each element over one connection and waits for all replies.
    private func pipelined<Element: Sendable, Value: Sendable>(
        _ elements: [Element],
        _ call: @escaping @Sendable (RedisGate, Element, @escaping RedisGate.Answer<Value>) -> Void
    ) async -> [Result<Value, GateFailure>] {
        guard !elements.isEmpty else { return [] }
        return await withCheckedContinuation { continuation in
            overReadyGate(gates[...]) { gate in
                guard let gate else { return continuation.resume(returning: elements.map { _ in .failure(.notConnected) }) }
                let gathered = Gathered<Value>(count: elements.count) { continuation.resume(returning: $0) }
                for (index, element) in elements.enumerated() { call(gate, element) { gathered.set(index, $0) } }
            }
        }
    }

    /// Finds a loop whose connection is ready, and goes on there: one that is being made anew must not fail what another can do.
    private func overReadyGate(_ gates: ArraySlice<RedisGate>, _ body: @escaping @Sendable (RedisGate?) -> Void) {
        guard let gate = gates.first else { return body(nil) }
        gate.eventLoop.execute {
            if gate.isConnected { body(gate) } else { self.overReadyGate(gates.dropFirst(), body) }
        }
    }
}

/// Replies that come back one by one, on one event loop.
private final class Gathered<Value: Sendable> {
    private var results: [Result<Value, GateFailure>?]
    private var missing: Int
    private let done: ([Result<Value, GateFailure>]) -> Void

    init(count: Int, done: @escaping ([Result<Value, GateFailure>]) -> Void) {
        self.results = Array(repeating: nil, count: count)
        self.missing = count
        self.done = done
    }

    func set(_ index: Int, _ result: Result<Value, GateFailure>) {
        guard results[index] == nil else { return }
        results[index] = result
        missing -= 1
        if missing == 0 { done(results.map { $0 ?? .failure(.notConnected) }) }
    }
}

extension ResyncFailure {
    /// The row was locked when the statement came by, and there was no time to wait for it.
    static let locked = ResyncFailure(.locked, "PostgreSQL: another transaction has locked the product's row")
    /// The dataset changed under each of its rounds.
    static let datasetMoves = ResyncFailure(.keys, "Redis: the product's dataset changed again and again")
}
