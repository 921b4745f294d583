// Carries out resyncs, many products in one round: one pipelined look, one statement that raises fences, one pipelined install.
//
// Who suffers: a product whose row is locked, or whose row or keys cannot be used, fails alone. The statement of a round waits for no row unless its caller gives it
//   time.
// Bounds: each product's own bounds are those of its machine. At most `maximumLockWaits` statements of one call wait for a row, each for `lockWait`.
// Stop: every machine of the round has finished.

import PostgresClient

final class ResyncDriver: Sendable {
    /// How long a statement waits for one product's row. This is long enough for the queue behind a hot row's group commits.
    static let lockWait: Duration = .seconds(1)
    /// How many statements wait for a row at the same time. Each takes a connection of the ledger's pool.
    static let maximumLockWaits = 3
    /// The pause between two tries of a locked row whose fence must be raised above that of Redis.
    static let raisePause: Duration = .milliseconds(20)

    /// A product and how it is resynced.
    struct Entry: Sendable {
        var id: ProductID
        /// Whether to install even if nothing looks wrong.
        var isForced: Bool
        /// Whether to remove the product's keys first, because they cannot be used.
        var isMended = false
        /// Whether the fence is raised by a leap, because the ledger has gone back; see `Resync`.
        var isLeaping = false
    }

    private let ledger: PostgresLedger
    private let gates: RedisGates
    private let products: ShardProducts
    private let metrics: EngineMetrics

    init(ledger: PostgresLedger, gates: RedisGates, products: ShardProducts, metrics: EngineMetrics) {
        self.ledger = ledger
        self.gates = gates
        self.products = products
        self.metrics = metrics
    }

    /// Resyncs these products together. The answer has a result for each.
    /// - Parameter lockWaitsUntil: products whose rows are locked are waited for one by one until then; nil: they fail as `locked` at once
    func resync(_ entries: [Entry], lockWaitsUntil: ContinuousClock.Instant? = nil) async -> [ProductID: ResyncResult] {
        var results = await round(entries, lockWaitsUntil)
        // Keys that cannot be used are removed, once, and the products installed anew. The ledger has everything that the keys held.
        let spoiled = entries.filter { results[$0.id]?.failure?.scope == .keys && !$0.isMended }
        if !spoiled.isEmpty {
            let again = spoiled.map { Entry(id: $0.id, isForced: true, isMended: true, isLeaping: $0.isLeaping) }
            results.merge(await round(again, lockWaitsUntil)) { $1 }
        }
        for result in results.values {
            switch result.outcome {
            case .installed, .newer: metrics.resyncs.add(1)
            case .notNeeded, .productMissing, .foreign: metrics.resyncsNotNeeded.add(1)
            case .failed: metrics.resyncsFailed.add(1)
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
            var machine = Resync(
                forced: entry.isForced || entry.isMended,
                leaping: entry.isLeaping,
                ledger: products.ledgerName
            )
            let action = machine.began()
            round.machines[entry.id] = machine
            if let failure = broken[entry.id] {
                round.fail(entry.id, failure)
            } else {
                round.actions.append((entry.id, action))
            }
        }
        // Each pass advances every unfinished machine by one step, and each machine has a bounded number of steps.
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

    /// Removes the keys of these products. The answer has those for which that failed.
    private func mend(_ ids: [ProductID]) async -> [ProductID: ResyncFailure] {
        await tell(ids) { gate, id, answer in gate.mend(GateKeys(id), answer: answer) }
    }

    /// Has Redis stop serving these products. The answer has those for which that failed.
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
        for (id, result) in zip(ids, await gates.pipelined(ids, call)) {
            if case .failure(let failure) = result { failures[id] = ResyncFailure(failure) }
        }
        return failures
    }

    private func look(_ round: inout Round) async {
        let ids = round.actions.compactMap { $0.1 == .look ? $0.0 : nil }
        guard !ids.isEmpty else { return }
        let results = await gates.pipelined(ids) { gate, id, answer in
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
            // One of the products is bad. Each is tried alone, so that the others do not fail with it.
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

    /// Raises these fences one by one, some at the same time, and waits for the rows.
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

    /// Raises the fences of products for which Redis is ahead. A locked row is tried again until `lockWaitsUntil`, because it may just be a hot one: its group
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
                    metrics.raisedAboveRedis.add(1)
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

    /// Raises the fences in one statement, or in one statement each if one of the products is bad.
    private func raised(_ raises: [Raise]) async -> [ProductID: Result<Resync.LedgerState, ResyncFailure>] {
        var results: [ProductID: Result<Resync.LedgerState, ResyncFailure>] = [:]
        do {
            let states = try await ledger.raise(raises)
            // A product is missing in the answer if its row is locked, or if it was deleted since the last step. The next resync tells which.
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
        let results = await gates.pipelined(installs) { gate, install, answer in
            gate.install(GateKeys(install.0), dataset: install.1, install.2, answer: answer)
        }
        for (install, result) in zip(installs, results) {
            switch result {
            case .success(let reply): round.take(install.0) { $0.installReplied(reply) }
            case .failure(let failure): round.fail(install.0, ResyncFailure(failure))
            }
        }
    }

    private static func newMarker() -> String { String(UInt64.random(in: .min ... .max), radix: 36) }
}
