// What the gate sends for resyncs, the sweep, the audit and pruning. No buyer waits for any of these calls.

import NIOCore
import RedisClient

extension GateKeys {
    fileprivate var ofLook: [String] { [stock, meta, pending, marker, owed] }
}

extension RedisGate {
    /// Takes a result for each product, in their order.
    typealias Answers<Value> = ([Result<Value, GateFailure>]) -> Void

    /// - Parameter marker: the name to give the dataset if the product has no marker yet; nil leaves Redis unchanged
    func look(_ keys: GateKeys, marker: String?, answer: @escaping Answer<GateView>) {
        background(
            .look,
            keys: keys.ofLook,
            arguments: { _ in [.string(marker ?? "")] },
            decode: Self.view,
            answer: answer
        )
    }

    /// Looks at several products in one call, and leaves Redis unchanged.
    func looks(_ products: [GateKeys], answer: @escaping Answers<GateView>) {
        backgroundEach(.look, products, keys: \.ofLook, arguments: { _ in [""] }, decode: Self.view, answer: answer)
    }

    private static func view(_ info: GateConnectionInfo, _ value: RedisValue) -> GateView? {
        guard let parts = value.array, parts.count == 8, let marker = parts[0].string, let stamp = parts[1].string,
            let fence = parts[2].int, let counter = parts[3].string, let pending = parts[4].int, let off = parts[5].int,
            let highest = parts[6].int, let ledger = parts[7].string
        else { return nil }
        return GateView(
            dataset: "\(info.dataset):\(marker)",
            stamp: stamp.isEmpty ? nil : stamp,
            fence: Fence(fence),
            // A counter that is no 64-bit number is a difference from any stock. It must not be read as a missing counter, which is right for a product
            // that is not on sale.
            counter: counter.isEmpty ? nil : Int64(counter) ?? .min,
            pending: Int(pending),
            isOffSale: off == 1,
            highestFence: Fence(highest),
            ledger: ledger.isEmpty ? nil : ledger
        )
    }

    func install(_ keys: GateKeys, dataset: String, _ ledger: Resync.LedgerState, answer: @escaping Answer<InstallReply>) {
        background(
            .install,
            keys: [keys.stock, keys.meta, keys.pending, keys.owed, keys.marker],
            arguments: { info in
                [
                    .integer(ledger.fence.rawValue), .integer(ledger.stock), .integer(ledger.isOnSale ? 1 : 0), .string(dataset),
                    .string(info.dataset), .string(self.ledgerName),
                ]
            },
            decode: { _, value in value.int.flatMap(InstallReply.init(rawValue:)) },
            answer: answer
        )
    }

    /// Has Redis stop serving a product, to every server, until its next install. Another ledger's data is left alone.
    func void(_ keys: GateKeys, answer: @escaping Answer<Int64>) {
        background(
            .void,
            keys: [keys.meta],
            arguments: { _ in [.string(self.ledgerName)] },
            decode: { _, value in value.int },
            answer: answer
        )
    }

    /// Removes a product's keys that cannot be used. Another ledger's data is left alone.
    func mend(_ keys: GateKeys, answer: @escaping Answer<Int64>) {
        background(
            .mend,
            keys: [keys.stock, keys.meta, keys.pending, keys.owed, keys.marks, keys.marker],
            arguments: { _ in [.string(self.ledgerName)] },
            decode: { _, value in value.int },
            answer: answer
        )
    }

    /// What one step of the sweep found of a product.
    struct SweepStep: Sendable {
        /// Where the next step begins; `0` after the last one.
        let cursor: String
        let overdue: Int64
        /// How long the oldest reservation that this step saw has been pending, milliseconds; nil if it saw none.
        let oldest: Int64?
    }

    /// One bounded step of the sweep for each product.
    ///
    /// - Parameter products: each with the cursor at which its step begins
    func overdues(_ products: [(keys: GateKeys, cursor: String)], bound: TimeAmount, answer: @escaping Answers<SweepStep>) {
        let now = WallClock.milliseconds()
        backgroundEach(
            .overdue,
            products,
            keys: { [$0.keys.pending] },
            arguments: { [.string($0.cursor), .integer(now), .integer(bound.nanoseconds / 1_000_000)] },
            decode: { _, value in
                guard let parts = value.array, parts.count == 3, let next = parts[0].string, let overdue = parts[1].int,
                    let oldest = parts[2].int
                else { return nil }
                return SweepStep(cursor: next, overdue: overdue, oldest: Self.time(from: oldest, to: now))
            },
            answer: answer
        )
    }

    /// The number of marks that one call of pruning removes at most, of all its products. That takes a fraction of a millisecond of Redis' time.
    static let maximumPruned = 500

    /// What one step of pruning did to a product.
    struct PruneStep: Sendable {
        /// The number of marks that were removed.
        let removed: Int64
        /// Whether there may be more of them.
        let more: Bool
        /// After how many milliseconds the oldest mark that is left is beyond its retention; nil if none is left.
        let nextAfter: Int64?
    }

    /// One bounded step of pruning for each product.
    func prunes(_ products: [GateKeys], answer: @escaping Answers<PruneStep>) {
        let before = WallClock.milliseconds() - times.markRetention
        let most = Int64(max(1, Self.maximumPruned / max(1, products.count)))
        backgroundEach(
            .prune,
            products,
            keys: { [$0.marks, $0.meta] },
            arguments: { _ in [.integer(before), .integer(most), .string(self.ledgerName)] },
            decode: { _, value in
                guard let parts = value.array, parts.count == 2, let removed = parts[0].int, let oldest = parts[1].int else { return nil }
                return PruneStep(removed: removed, more: removed >= most, nextAfter: Self.time(from: before, to: oldest))
            },
            answer: answer
        )
    }

    /// The milliseconds between two times, one of which Redis replied; nil if that one is no time.
    private static func time(from first: Int64, to second: Int64) -> Int64? {
        guard first > 0, second > 0 else { return nil }
        // Two positive numbers.
        return second - first
    }

    /// Runs a script for several products, in one call if there is more than one product.
    private func backgroundEach<Product, Value>(
        _ script: GateScript,
        _ products: [Product],
        keys: (Product) -> [String],
        arguments: (Product) -> [RedisArgument],
        decode: @escaping (GateConnectionInfo, RedisValue) -> Value?,
        answer: @escaping Answers<Value>
    ) {
        let each = products.map { (keys: keys($0), arguments: arguments($0)) }
        guard each.count > 1, let several = script.forSeveral else {
            return alone(script, each[...], decode: decode, answers: [], answer: answer)
        }
        let sizes: [RedisArgument] = [.integer(Int64(each[0].keys.count)), .integer(Int64(each[0].arguments.count))]
        background(
            several,
            keys: each.flatMap(\.keys),
            arguments: { _ in sizes + each.flatMap(\.arguments) },
            decode: { info, value in
                guard let replies = value.array, replies.count == each.count else { return nil }
                return replies.map { reply -> Result<Value, GateFailure> in
                    if case .error(let error) = reply { return .failure(GateFailure(RedisError(.server(error)))) }
                    return decode(info, reply).map { .success($0) } ?? .failure(.unreadable)
                }
            },
            answer: { (result: Result<[Result<Value, GateFailure>], GateFailure>) in
                switch result {
                case .success(let results): answer(results)
                // No product's keys can have caused this, yet the failure says so: each is asked alone, so that none suffers for another.
                case .failure(let failure) where failure.isOfProduct:
                    self.alone(script, each[...], decode: decode, answers: [], answer: answer)
                case .failure(let failure): answer(each.map { _ in .failure(failure) })
                }
            }
        )
    }

    /// Runs a script for one product after the other.
    private func alone<Value>(
        _ script: GateScript,
        _ left: ArraySlice<(keys: [String], arguments: [RedisArgument])>,
        decode: @escaping (GateConnectionInfo, RedisValue) -> Value?,
        answers: [Result<Value, GateFailure>],
        answer: @escaping Answers<Value>
    ) {
        guard let next = left.first else { return answer(answers) }
        background(script, keys: next.keys, arguments: { _ in next.arguments }, decode: decode) {
            self.alone(script, left.dropFirst(), decode: decode, answers: answers + [$0], answer: answer)
        }
    }

    private func background<Value>(
        _ script: GateScript,
        keys: [String],
        arguments: (GateConnectionInfo) -> [RedisArgument],
        decode: @escaping (GateConnectionInfo, RedisValue) -> Value?,
        answer: @escaping Answer<Value>
    ) {
        eventLoop.preconditionInEventLoop()
        guard let connection = client.connection(on: eventLoop), let info = connection.attachment as? GateConnectionInfo else {
            return answer(.failure(.notConnected))
        }
        let arguments = arguments(info)
        call(connection, info, script, keys: keys, argumentCount: arguments.count, timeout: times.background) { writer in
            for argument in arguments { writer.write(argument) }
        } answer: { result in
            if case .failure(let failure) = result, let words = failure.saysOfSlots { self.reports.saidOfSlots(words) }
            answer(
                result.flatMap { value in
                    decode(info, value).map { .success($0) } ?? .failure(.unreadable)
                }
            )
        }
    }
}
