// What the gate sends for resyncs, the sweep, the audit and pruning. No buyer waits for any of these calls.

import NIOCore
import RedisClient

extension RedisGate {
    /// - Parameter marker: the name to give the dataset if the product has no marker yet; nil leaves Redis unchanged
    func look(_ keys: GateKeys, marker: String?, answer: @escaping Answer<GateView>) {
        background(.look, keys: [keys.stock, keys.meta, keys.pending, keys.marker, keys.owed], arguments: { _ in [.string(marker ?? "")] })
        {
            info,
            value in
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
        } answer: {
            answer($0)
        }
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

    /// One bounded step of the sweep.
    func overdue(_ keys: GateKeys, cursor: String, bound: TimeAmount, answer: @escaping Answer<(cursor: String, overdue: Int64)>) {
        background(
            .overdue,
            keys: [keys.pending],
            arguments: { _ in [.string(cursor), .integer(WallClock.milliseconds()), .integer(bound.nanoseconds / 1_000_000)] },
            decode: { _, value in
                guard let parts = value.array, parts.count == 2, let next = parts[0].string, let overdue = parts[1].int else { return nil }
                return (next, overdue)
            },
            answer: answer
        )
    }

    /// The number of marks that one step of pruning removes at most. That takes a fraction of a millisecond of Redis' time.
    static let maximumPruned = 500

    /// One bounded step of pruning. Answers with the number of marks that were removed.
    func prune(_ keys: GateKeys, answer: @escaping Answer<Int64>) {
        background(
            .prune,
            keys: [keys.marks, keys.meta],
            arguments: { _ in
                [
                    .integer(WallClock.milliseconds() - self.times.markRetention), .integer(Int64(Self.maximumPruned)),
                    .string(self.ledgerName),
                ]
            },
            decode: { _, value in value.int },
            answer: answer
        )
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
