// Compares Redis with the ledger. Only the audit finds the difference that a process leaves when it dies between its commit in the ledger and its apply in
// Redis.
//
// A *quiet look* at a product reads Redis, then PostgreSQL, then Redis again. It counts only if Redis has not changed in between and has no reservation
// pending. A difference that two quiet looks, a second apart, show alike is a finding.
// A product whose resync runs or waits for its turn is left out: its difference is known already, and the resync ends it.
// Bounds: `chunk` products a look.

import Algorithms
import CircuitBreaker
import PostgresClient
import Synchronization

/// A difference that one quiet look showed. If a second look shows the same one, it is a finding.
struct AuditSuspicion: Hashable, Sendable {
    var fence: Fence
    var redisFence: Fence
    var stock: Int64
    var counter: Int64?
    /// Whether Redis holds another ledger's data for the product. That is no difference, but the data must not be used.
    var isForeign = false
}

struct Audit: Sendable {
    let products: ShardProducts
    let ledger: PostgresLedger
    let gates: RedisGates
    let resyncs: ResyncCoordinator
    let breaker: CircuitBreaker
    let events: EventLog
    let metrics: EngineMetrics
    /// How many products one look takes together at most.
    let chunk: Int

    /// The ledger's sums and what Redis holds, for one product. The result is nil if there is no such product; `gate` is nil if Redis cannot be reached.
    func product(_ id: ProductID) async throws(PostgresError) -> (ledger: LedgerTotals, gate: GateView?)? {
        guard let totals = try await ledger.totals(of: id) else { return nil }
        guard !breaker.isOpen else { return (totals, nil) }
        return (totals, await gates.look(id))
    }

    /// One audit of all gated products.
    func run() async {
        guard !breaker.isOpen else { return }
        // A product that a recovery left out is sold without Redis, so there is nothing to compare. A product with another ledger's data is looked at, because
        // that data may be gone by now.
        let audited = products.all.filter { !$0.state.withLock { $0.standing.isLeft } }
        for chunk in audited.chunks(ofCount: chunk) { await audit(Array(chunk)) }
    }

    private func audit(_ products: [GatedProduct]) async {
        var suspects: [GatedProduct] = []
        for (product, suspicion) in await quietLook(products) {
            let wasForeign = product.state.withLock { state in
                state.suspicion = state.schedule.isIdle ? suspicion : nil
                return state.standing.isForeign
            }
            let isForeign = suspicion?.isForeign ?? false
            // Another ledger's data is not counted as a difference. The resync records the owner, and installs the product once that data is gone.
            if isForeign != wasForeign { resyncs.ask(product, forced: false) }
            if suspicion != nil, !isForeign { suspects.append(product) }
        }
        guard !suspects.isEmpty else { return }
        try? await Task.sleep(for: .seconds(1))
        for (product, suspicion) in await quietLook(suspects) {
            guard let suspicion, !suspicion.isForeign,
                product.state.withLock({ $0.schedule.isIdle && $0.suspicion == suspicion })
            else { continue }
            metrics.auditFindings.add(1)
            events.tellSome(
                .auditFound(
                    product.id,
                    stock: suspicion.stock,
                    counter: suspicion.counter,
                    fence: suspicion.fence,
                    redisFence: suspicion.redisFence
                )
            )
            resyncs.ask(product, forced: true)
        }
    }

    /// The products whose look was quiet, each with the difference that it showed.
    private func quietLook(_ products: [GatedProduct]) async -> [(GatedProduct, AuditSuspicion?)] {
        let first = await looks(products)
        for (product, result) in zip(products, first) {
            if case .failure(let failure) = result, failure.isOfProduct { resyncs.spoiled(product, failure) }
        }
        guard let states = try? await ledger.states(of: products.map(\.id)) else { return [] }
        let second = await looks(products)
        var findings: [(GatedProduct, AuditSuspicion?)] = []
        for (index, product) in products.enumerated() {
            guard let view = try? first[index].get(), let again = try? second[index].get(), view == again, let state = states[product.id]
            else { continue }
            if view.foreignLedger(to: self.products.ledgerName) != nil {
                findings.append((product, Self.suspicion(view, state, isForeign: true)))
            } else if view.pending == 0 {
                let expected = state.isOnSale ? state.stock : nil
                let isExact = view.isLoaded && view.fence == state.fence && view.counter == expected
                findings.append((product, isExact ? nil : Self.suspicion(view, state, isForeign: false)))
            }
        }
        return findings
    }

    private func looks(_ products: [GatedProduct]) async -> [Result<GateView, GateFailure>] {
        await gates.together(products) { gate, products, answer in gate.looks(products.map(\.keys), answer: answer) }
    }

    private static func suspicion(_ view: GateView, _ state: Resync.LedgerState, isForeign: Bool) -> AuditSuspicion {
        AuditSuspicion(fence: state.fence, redisFence: view.fence, stock: state.stock, counter: view.counter, isForeign: isForeign)
    }
}
