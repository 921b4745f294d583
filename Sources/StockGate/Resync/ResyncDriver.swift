// Carries out resyncs, many products in one round: one pipelined look, one bump statement, one pipelined install.
//
// Bounds: `chunk` products a round; each product's own bounds are its machine's. What waits is at most one entry a product (its schedule).
// Stop: every machine of the round has finished.

import NIOCore
import PostgresClient
import Synchronization

final class ResyncDriver: Sendable {
    typealias Ended = @Sendable (Resync.Outcome) -> Void

    private let ledger: PostgresLedger
    private let gates: [RedisGate]
    private let counters: EngineCounters
    private let chunk: Int
    private let waiting = Mutex<[(product: GatedProduct, forced: Bool, ended: Ended)]>([])
    private let signal: AsyncStream<Void>
    private let wake: AsyncStream<Void>.Continuation

    init(ledger: PostgresLedger, gates: [RedisGate], counters: EngineCounters, chunk: Int) {
        self.ledger = ledger
        self.gates = gates
        self.counters = counters
        self.chunk = max(1, chunk)
        (self.signal, self.wake) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    }

    /// Adds a product to the next round.
    func enqueue(_ product: GatedProduct, forced: Bool, ended: @escaping Ended) {
        waiting.withLock { $0.append((product, forced, ended)) }
        wake.yield()
    }

    /// Runs rounds until the task is cancelled.
    func run() async {
        for await _ in signal {
            while true {
                let round = waiting.withLock { waiting in
                    let round = Array(waiting.prefix(chunk))
                    waiting.removeFirst(round.count)
                    return round
                }
                if round.isEmpty { break }
                let outcomes = await resync(round.map { ($0.product.id, $0.forced) })
                for entry in round { entry.ended(outcomes[entry.product.id] ?? .failed) }
            }
        }
    }

    // MARK: One round

    /// Resyncs these products together. Each has an outcome in the answer.
    func resync(_ products: [(id: ProductID, forced: Bool)]) async -> [ProductID: Resync.Outcome] {
        var machines: [ProductID: Resync] = [:]
        var actions: [(ProductID, Resync.Action)] = []
        for (id, forced) in products where machines[id] == nil {
            var machine = Resync(forced: forced)
            actions.append((id, machine.began()))
            machines[id] = machine
        }
        // Each pass moves every unfinished machine one step on; a machine has a bounded number of steps.
        while !actions.isEmpty {
            var next: [(ProductID, Resync.Action)] = []
            func take(_ id: ProductID, _ event: (inout Resync) -> Resync.Action) {
                guard var machine = machines[id] else { return }
                let action = event(&machine)
                machines[id] = machine
                if action != .finish { next.append((id, action)) }
            }
            await look(actions, take)
            await readFences(actions, take)
            await bump(actions, take)
            await install(actions, take)
            actions = next
        }
        var outcomes: [ProductID: Resync.Outcome] = [:]
        for (id, machine) in machines {
            let outcome = machine.outcome ?? .failed
            outcomes[id] = outcome
            switch outcome {
            case .installed, .newer: counters.resyncs.add(1)
            case .notNeeded, .productMissing: counters.resyncsNotNeeded.add(1)
            case .failed: counters.resyncsFailed.add(1)
            }
        }
        return outcomes
    }

    private typealias Take = (ProductID, (inout Resync) -> Resync.Action) -> Void

    private func look(_ actions: [(ProductID, Resync.Action)], _ take: Take) async {
        let ids = actions.compactMap { $0.1 == .look ? $0.0 : nil }
        guard !ids.isEmpty else { return }
        let results = await pipelined(ids) { gate, id, answer in
            gate.look(GateKeys(id), marker: Self.newMarker(), answer: answer)
        }
        for (id, result) in zip(ids, results) {
            switch result {
            case .success(let view): take(id) { $0.looked(view) }
            case .failure: take(id) { $0.stepFailed() }
            }
        }
    }

    private func readFences(_ actions: [(ProductID, Resync.Action)], _ take: Take) async {
        let ids = actions.compactMap { $0.1 == .readFence ? $0.0 : nil }
        guard !ids.isEmpty else { return }
        do {
            let states = try await ledger.states(of: ids)
            for id in ids { take(id) { $0.fenceRead(states[id]?.fence) } }
        } catch {
            for id in ids { take(id) { $0.stepFailed() } }
        }
    }

    private func bump(_ actions: [(ProductID, Resync.Action)], _ take: Take) async {
        let ids = actions.compactMap { $0.1 == .bump ? $0.0 : nil }
        guard !ids.isEmpty else { return }
        do {
            let states = try await ledger.bump(ids)
            for id in ids { take(id) { $0.bumped(states[id]) } }
        } catch {
            for id in ids { take(id) { $0.stepFailed() } }
        }
    }

    private func install(_ actions: [(ProductID, Resync.Action)], _ take: Take) async {
        let installs: [(ProductID, String, Resync.LedgerState)] = actions.compactMap {
            if case .install(let dataset, let ledger) = $0.1 { ($0.0, dataset, ledger) } else { nil }
        }
        guard !installs.isEmpty else { return }
        let results = await pipelined(installs) { gate, install, answer in
            gate.install(GateKeys(install.0), dataset: install.1, install.2, answer: answer)
        }
        for (install, result) in zip(installs, results) {
            switch result {
            case .success(let reply): take(install.0) { $0.installReplied(reply) }
            case .failure: take(install.0) { $0.stepFailed() }
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
    func overdue(_ products: [GatedProduct], bound: TimeAmount) async -> [(GatedProduct, Int64)] {
        let results = await pipelined(products) { gate, product, answer in
            gate.overdue(product.keys, cursor: product.state.withLock { $0.sweepCursor }, bound: bound) { result in
                answer(result.map { OverdueStep(cursor: $0.cursor, overdue: $0.overdue) })
            }
        }
        var overdue: [(GatedProduct, Int64)] = []
        for (product, result) in zip(products, results) {
            guard case .success(let step) = result else { continue }
            product.state.withLock { $0.sweepCursor = step.cursor }
            overdue.append((product, step.overdue))
        }
        return overdue
    }

    private struct OverdueStep: Sendable {
        let cursor: String
        let overdue: Int64
    }

    /// Reads Redis, PostgreSQL, then Redis again. A product whose two looks differ, or that has reservations pending, is not quiet and is left out.
    func quietLook(_ products: [GatedProduct]) async -> [(GatedProduct, AuditSuspicion?)] {
        func looks() async -> [GateView?] {
            await pipelined(products) { gate, product, answer in gate.look(product.keys, marker: nil, answer: answer) }.map {
                try? $0.get()
            }
        }
        let before = await looks()
        guard let states = try? await ledger.states(of: products.map(\.id)) else { return [] }
        let after = await looks()
        var findings: [(GatedProduct, AuditSuspicion?)] = []
        for (index, product) in products.enumerated() {
            guard let view = before[index], view == after[index], view.pending == 0, let state = states[product.id] else { continue }
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
        guard let gate = gates.first, !elements.isEmpty else { return elements.map { _ in .failure(.notConnected) } }
        return await withCheckedContinuation { continuation in
            gate.eventLoop.execute {
                let gathered = Gathered<Value>(count: elements.count) { continuation.resume(returning: $0) }
                for (index, element) in elements.enumerated() { call(gate, element) { gathered.set(index, $0) } }
            }
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
