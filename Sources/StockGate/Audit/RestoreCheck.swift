// What an operator runs after a backup of the ledger was restored: compares Redis with the ledger, product by product, and makes Redis right.
//
// Every gated product is looked at; one that differs is resynced, which raises the ledger's fence above what Redis holds, in one step whatever the distance.
// Sales may go on meanwhile: a resync at any moment is harmless.
// Who suffers: where a master does not answer, its own products stay unmended, and no others.
// Bounds: `chunk` products a look, one look a shard at a time. One report for each product that differs.

import Algorithms
import PostgresClient

/// What the check of a restored ledger found for one product, and what came of it.
public struct RestoreFinding: Hashable, Sendable {
    /// How Redis and the ledger differ.
    public enum Difference: Hashable, Sendable {
        /// Redis names a fence that the ledger has not reached: the ledger has lost commits that it had confirmed.
        case redisAhead
        /// Redis holds an older fence, nothing, or another stock. That is ordinary while sales go on.
        case other
        /// Redis holds another ledger's data. It is left alone.
        case foreign(String)
        /// What Redis holds cannot be read. The text is what Redis or the reader said.
        case unreadable(String)
    }

    /// The product.
    public var product: ProductID
    /// How they differ.
    public var difference: Difference
    /// The ledger's fence and stock before.
    public var fence: Fence
    /// Units in the ledger before.
    public var stock: Int64
    /// The highest fence that Redis named before; nil if it could not be read.
    public var redisFence: Fence?
    /// The counter in Redis before.
    public var counter: Int64?
    /// How the resync ended; for another ledger's data, none was tried.
    public var outcome: Resync.Outcome?
    /// Why the resync failed; nil if it did not.
    public var failure: ResyncFailure?

    /// Whether Redis serves the product exactly now, or has nothing to serve. Another ledger's data is left to an operator.
    public var isMended: Bool { outcome.map { $0.hasSucceeded && $0.foreignLedger == nil } ?? false }
}

struct RestoreCheck: Sendable {
    let products: GatedProducts
    let ledger: PostgresLedger
    let chunk: Int

    /// How long the rows of one chunk that are locked are waited for, all together.
    static let lockWait: Duration = .seconds(10)

    /// Looks at every gated product, and resyncs those that differ. Products that agree are not in the answer, which is in the order of the products' ids.
    func run() async throws(PostgresError) -> [RestoreFinding] {
        var homes: [Shard.ID?: (shard: Shard?, ids: [ProductID])] = [:]
        for product in products.all {
            let shard = product.shard
            homes[shard?.id, default: (shard, [])].ids.append(product.id)
        }
        // Each product is compared with what its own shard's gates say. A shard that is slow delays no other.
        let results = await withTaskGroup(of: Result<[RestoreFinding], PostgresError>.self) { group in
            for (shard, ids) in homes.values {
                group.addTask {
                    do throws(PostgresError) {
                        return .success(try await check(ids.sorted { $0.rawValue < $1.rawValue }, shard))
                    } catch {
                        return .failure(error)
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        var findings: [RestoreFinding] = []
        for result in results { findings += try result.get() }
        return findings.sorted { $0.product.rawValue < $1.product.rawValue }
    }

    /// Looks at these products of one shard, and resyncs those that differ. Without a shard nothing can be resynced.
    private func check(_ ids: [ProductID], _ shard: Shard?) async throws(PostgresError) -> [RestoreFinding] {
        var findings: [RestoreFinding] = []
        for ids in ids.chunks(ofCount: chunk) {
            var chunk = try await differing(Array(ids), shard)
            let own = chunk.filter { $0.outcome == nil }
            let entries = own.map { ResyncDriver.Entry(id: $0.product, isForced: true) }
            let results = await shard?.driver.resync(entries, lockWaitsUntil: .now + Self.lockWait) ?? [:]
            for index in chunk.indices where chunk[index].outcome == nil {
                let result = results[chunk[index].product] ?? (shard == nil ? .withoutMaster : .untried)
                chunk[index].outcome = result.outcome
                chunk[index].failure = result.failure
            }
            findings += chunk
        }
        return findings
    }

    private func differing(_ ids: [ProductID], _ shard: Shard?) async throws(PostgresError) -> [RestoreFinding] {
        let looks: [Result<GateView, GateFailure>] =
            await shard?.gates.pipelined(ids) { gate, id, answer in gate.look(GateKeys(id), marker: nil, answer: answer) }
            ?? ids.map { _ in .failure(.withoutMaster) }
        // Redis is read first: in one history it is never ahead of what the ledger says afterwards.
        let states = try await ledger.states(of: ids)
        return zip(ids, looks).compactMap { id, look in
            guard let state = states[id] else { return nil }
            var finding = RestoreFinding(product: id, difference: .other, fence: state.fence, stock: state.stock)
            switch look {
            case .failure(let failure): finding.difference = .unreadable(failure.words)
            case .success(let view):
                finding.redisFence = view.highestFence
                finding.counter = view.counter
                let counter = state.isOnSale ? state.stock : nil
                if let theirs = view.foreignLedger(to: products.ledgerName) {
                    finding.difference = .foreign(theirs)
                    finding.outcome = .foreign(theirs)
                } else if view.highestFence > state.fence {
                    finding.difference = .redisAhead
                } else if view.isLoaded, view.fence == state.fence, view.counter == counter {
                    return nil
                }
            }
            return finding
        }
    }
}
