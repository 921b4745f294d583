import Algorithms
import SeededRandom
import PrivateServers
import RedisClient
@testable import StockGate
import StockGateProof
import Testing

/// The Lua that ships and the simulator's Redis, on the same generated cases: the same replies and the same state, byte for byte.
@Suite("The gate's scripts and their model")
struct GateContractTests {
    private struct Scripts {
        let reserve, settle, release, apply, install, look, overdue, void, mend, prune: String

        init() throws {
            reserve = try ContractSources.text("Gate/Scripts/reserve.lua")
            settle = try ContractSources.text("Gate/Scripts/settle.lua")
            release = try ContractSources.text("Gate/Scripts/release.lua")
            apply = try ContractSources.text("Gate/Scripts/apply.lua")
            install = try ContractSources.text("Gate/Scripts/install.lua")
            look = try ContractSources.text("Gate/Scripts/look.lua")
            overdue = try ContractSources.text("Gate/Scripts/overdue.lua")
            void = try ContractSources.text("Gate/Scripts/void.lua")
            mend = try ContractSources.text("Gate/Scripts/mend.lua")
            prune = try ContractSources.text("Gate/Scripts/prune.lua")
        }
    }

    private static let (stock, meta, pending, owed, marks, marker) = ("{1}s", "{1}m", "{1}p", "{1}o", "{1}d", "{1}k")
    private static let retention: Int64 = 400

    @Test("generated cases, every reply and the state at each end")
    func generated() throws {
        let server = try PrivateRedis.start()
        defer { server.stop() }
        let redis = try RawRedis(port: server.port)
        let scripts = try Scripts()
        var replies: Set<String> = []
        for seed in UInt64(1)...300 {
            var random = SplitMix64(seed: seed)
            var model = GateModel()
            _ = try redis.call(["FLUSHALL"])
            var now: Int64 = 1_790_000_000_000
            for step in 0..<40 {
                now += Int64(random.number(0...60))
                let (what, real, expected) =
                    try step == 0
                    ? look(redis, scripts, &model, "m1") : move(redis, scripts, &model, &random, now, &replies)
                try #require(real == expected, "seed \(seed), step \(step), \(what)")
                replies.insert("\(what.prefix { $0 != " " }) \(real.description.prefix(2))")
            }
            try compareState(redis, model, seed)
        }
        // Every kind of reply was met.
        for kind in [
            "reserve 0", "reserve 1", "reserve 2", "reserve 3", "reserve 4", "reserve 5", "reserve plain one", "reserve plain many",
            "install 0", "install 1", "install 2",
            "install 3",
        ] {
            #expect(replies.contains(kind), "\(kind) was never met")
        }
        let kinds = [
            "apply {0", "apply {1", "apply {2", "settle 1", "settle group", "release 1", "release 0", "prune {0", "prune {1", "void 0",
            "void 1",
            "void-foreign 0", "mend 4", "mend-foreign 0",
        ]
        for kind in kinds
            + GateModel.Key.allCases.map({ "lost \($0)" })
        {
            #expect(replies.contains(kind), "\(kind) was never met")
        }
    }

    private typealias Compared = (what: String, real: RawReply, expected: RawReply)

    private func look(_ redis: RawRedis, _ scripts: Scripts, _ model: inout GateModel, _ newMarker: String) throws -> Compared {
        let view = model.look(newMarker: newMarker, dataset: "d")
        let expected = RawReply.list([
            .text(model.marker ?? ""), .text(view.stamp ?? ""), .number(view.fence.rawValue), .text(view.counter.map(String.init) ?? ""),
            .number(Int64(view.pending)), .number(view.isOffSale ? 1 : 0), .number(view.highestFence.rawValue), .text(view.ledger ?? ""),
        ])
        return (
            "look", try redis.eval(scripts.look, keys: [Self.stock, Self.meta, Self.pending, Self.marker, Self.owed], [newMarker]), expected
        )
    }

    private func move(
        _ redis: RawRedis,
        _ scripts: Scripts,
        _ model: inout GateModel,
        _ random: inout SplitMix64,
        _ now: Int64,
        _ kinds: inout Set<String>
    ) throws -> Compared {
        let keys = ["DEC-1", "DEC-2", "DEC-3", "DEC-10", "DEC-a:b", "DEC-5"]
        func key() -> String { keys[random.number(0...keys.count - 1)] }
        func ledger() -> String { self.ledger(&random) }
        func held() -> Held {
            Held(
                fence: Fence(max(1, model.fence.rawValue - Int64(random.happens(0.2) ? 1 : 0))),
                token: Token(max(1, model.sequence - Int64(random.happens(0.4) ? random.number(0...4) : 0)))
            )
        }
        /// Mostly a reservation that exists.
        func named() -> (key: String, held: Held) {
            guard random.happens(0.7), !model.pending.isEmpty else { return (key(), held()) }
            let one = model.pending[random.number(0...model.pending.count - 1)]
            return (
                one.key,
                Held(
                    fence: random.happens(0.9) ? model.fence : model.fence.next,
                    token: random.happens(0.9) ? one.token : Token(one.token.rawValue + 1)
                )
            )
        }
        switch random.number(0...24) {
        case 0...8:
            // One call with several requests is the same as the requests one after the other.
            let dataset = random.happens(0.93) ? "d" : "e"
            let ledger = ledger()
            let count = random.happens(0.5) ? 1 : random.number(2...6)
            let requests = (0..<count).map { _ in (key: key(), quantity: Int64(random.number(1...4))) }
            let isSame = random.happens(0.5)
            let wanted = requests.map { (key: $0.key, quantity: Quantity(isSame ? requests[0].quantity : $0.quantity)) }
            let replies = model.reserve(wanted, dataset: dataset, now: now, ledger: ledger)
            var expected: [Int64] = [model.fence.rawValue]
            for reply in replies {
                switch reply {
                case .reserved(_, let token, let left): expected += [0, token.rawValue, left]
                case .joined(_, let token, let quantity): expected += [1, token.rawValue, quantity.rawValue]
                case .soldOut(let counter): expected += [2, counter, 0]
                case .notLoaded: expected = [0]
                case .notOnSale: expected += [4, 0, 0]
                case .alreadyDone: expected += [5, 0, 0]
                }
                kinds.insert("reserve \(expected.count == 1 ? 3 : expected[expected.count - 3])")
            }
            // All reserved, and one quantity on the wire: the short form.
            let isPlain = replies.allSatisfy { if case .reserved = $0 { true } else { false } }
            let saysOne = isSame || count == 1
            if isPlain, saysOne, case .reserved(let fence, let token, let left)? = replies.last {
                expected = [fence.rawValue, token.rawValue, left]
                kinds.insert("reserve plain \(count > 1 ? "many" : "one")")
            }
            let words = wanted.map { $0.key } + (saysOne ? wanted.prefix(1) : wanted[...]).map { "\($0.quantity)" }
            let real = try redis.eval(
                scripts.reserve,
                keys: [Self.stock, Self.meta, Self.pending, Self.marks, Self.marker],
                [dataset, "\(now)", ledger, "\(count)"] + words
            )
            // What the gate makes of the reply is what the model says.
            if case .list(let list) = real {
                let value = RedisValue.array(list.map { if case .number(let number) = $0 { .integer(number) } else { .null } })
                var read = try #require(ReserveReplies(value, quantities: wanted.map { $0.quantity }))
                for (request, reply) in zip(wanted, replies) { #expect(read.next(request.quantity) == reply) }
            }
            return ("reserve \(words)", real, .list(expected.map { .number($0) }))
        case 9...10:
            let entries = (0..<random.number(1...3)).map { _ in
                let (key, held) = named()
                return GateModel.SettleEntry(key: key, held: held)
            }
            let expected = RawReply.number(model.settle(entries, now: now, retention: Self.retention))
            // Entries of one reservation call may be named together, and need not be.
            let groups: [ArraySlice<GateModel.SettleEntry>] =
                random.happens(0.5) ? entries.chunked { $0.held == $1.held } : entries.chunks(ofCount: 1).map { $0 }
            let words =
                entries.map(\.key)
                + groups.flatMap { ["\($0[$0.startIndex].held.fence)", "\($0[$0.startIndex].held.token)", "\($0.count)"] }
            if groups.contains(where: { $0.count > 1 }) { kinds.insert("settle group") }
            let real = try redis.eval(
                scripts.settle,
                keys: [Self.meta, Self.pending, Self.marks],
                ["\(now)", "\(now - Self.retention)", "\(entries.count)"] + words
            )
            return ("settle \(words)", real, expected)
        case 11...13:
            let entries = (0..<random.number(1...3)).map { _ in
                let (key, held) = named()
                return GateModel.ReleaseEntry(key: key, held: held, isAbandoned: random.happens(0.4))
            }
            let expected = RawReply.number(model.release(entries))
            let words = entries.flatMap { ["\($0.held.fence)", $0.key, "\($0.held.token)", $0.isAbandoned ? "A" : "R"] }
            return ("release \(words)", try redis.eval(scripts.release, keys: [Self.stock, Self.meta, Self.pending], words), expected)
        case 14...16:
            let entries = (0..<random.number(1...3)).map { _ in
                let isDecrement = random.happens(0.5)
                return GateModel.ApplyEntry(
                    fence: Fence(max(1, model.fence.rawValue + Int64(random.number(0...4)) - 2)),
                    delta: Int64(random.number(1...3)) * (isDecrement ? -1 : 1),
                    key: isDecrement ? key() : ""
                )
            }
            let ledger = ledger()
            let expected = RawReply.list(model.apply(entries, now: now, ledger: ledger).map { .number($0.rawValue) })
            let words = entries.flatMap { ["\($0.fence)", "\($0.delta)", $0.key] }
            let real = try redis.eval(scripts.apply, keys: [Self.stock, Self.meta, Self.owed, Self.marks], ["\(now)", ledger] + words)
            return ("apply \(words)", real, expected)
        case 17...18:
            let ledger = Resync.LedgerState(
                fence: Fence(max(1, model.fence.rawValue + Int64(random.number(0...3)) - 1)),
                stock: random.happens(0.05) ? 9_000_000_000_000 : Int64(random.number(0...9)),
                isOnSale: random.happens(0.85)
            )
            let read = random.happens(0.9) ? "d:m1" : "d:m0"
            let name = self.ledger(&random)
            let expected = RawReply.number(model.install(ledger, read: read, dataset: "d", ledger: name).rawValue)
            let real = try redis.eval(
                scripts.install,
                keys: [Self.stock, Self.meta, Self.pending, Self.owed, Self.marker],
                ["\(ledger.fence)", "\(ledger.stock)", ledger.isOnSale ? "1" : "0", read, "d", name]
            )
            return ("install \(ledger)", real, expected)
        case 22:
            // Rarely, or little else would be met.
            guard random.happens(0.4) else { return try look(redis, scripts, &model, "m3") }
            let name = self.ledger(&random)
            let what = model.isForeign(to: name) ? "void-foreign" : "void"
            return (what, try redis.eval(scripts.void, keys: [Self.meta], [name]), .number(model.void(ledger: name)))
        case 23:
            let name = self.ledger(&random)
            let isForeign = model.isForeign(to: name)
            guard random.happens(isForeign ? 1 : 0.2) else { return try look(redis, scripts, &model, "m4") }
            let expected = RawReply.number(model.mend(ledger: name))
            let keys = [Self.stock, Self.meta, Self.pending, Self.owed, Self.marks, Self.marker]
            return (isForeign ? "mend-foreign" : "mend", try redis.eval(scripts.mend, keys: keys, [name]), expected)
        case 19:
            let bound = Int64(random.number(0...300))
            let overdue = Int64(model.overdue(now: now, bound: bound).count)
            let expected = RawReply.list([.text("0"), .number(overdue), .number(model.pending.map(\.time).min() ?? 0)])
            return ("overdue", try redis.eval(scripts.overdue, keys: [Self.pending], ["0", "\(now)", "\(bound)"]), expected)
        case 21:
            let (bound, limit, ledger) = (now - Int64(random.number(0...600)), random.number(1...3), ledger())
            let removed = model.prune(before: bound, atMost: limit, ledger: ledger)
            let oldest = model.isForeign(to: ledger) ? 0 : model.marks.map(\.time).min() ?? 0
            let expected = RawReply.list([.number(removed), .number(oldest)])
            let real = try redis.eval(scripts.prune, keys: [Self.marks, Self.meta], ["\(bound)", "\(limit)", ledger])
            return ("prune \(bound) \(limit)", real, expected)
        case 20:
            // A key is gone, evicted or deleted by hand.
            let lost = GateModel.Key.allCases[random.number(0...GateModel.Key.allCases.count - 1)]
            let names = [
                GateModel.Key.stock: Self.stock, .meta: Self.meta, .pending: Self.pending, .owed: Self.owed, .marks: Self.marks,
                .marker: Self.marker,
            ]
            model.lose(lost)
            kinds.insert("lost \(lost)")
            _ = try redis.call(["DEL", names[lost] ?? ""])
            return ("lost \(lost)", .none, .none)
        default:
            return try look(redis, scripts, &model, random.happens(0.5) ? "" : random.happens(0.7) ? "m1" : "m2")
        }
    }

    /// Mostly this one's name; a version before has none to say, and sometimes another ledger is there first.
    private func ledger(_ random: inout SplitMix64) -> String {
        random.happens(0.85) ? "7/stock/public" : random.happens(0.7) ? "" : "8/stock/public"
    }

    private func compareState(_ redis: RawRedis, _ model: GateModel, _ seed: UInt64) throws {
        #expect(try redis.call(["GET", Self.stock]) == (model.counter.map { .text("\($0)") } ?? .none), "seed \(seed)")
        #expect(
            try redis.call(["HMGET", Self.meta, "fence", "stamp", "sequence", "off", "ledger"])
                == .list([
                    model.fence == 0 ? .none : .text("\(model.fence)"), model.stamp.map { .text($0) } ?? .none,
                    model.sequence == 0 ? .none : .text("\(model.sequence)"), model.off.map { .text("\($0)") } ?? .none,
                    model.ledger.map { .text($0) } ?? .none,
                ]),
            "seed \(seed)"
        )
        for one in model.pending {
            let text = "\(one.token):\(one.quantity):\(one.time)" + (one.isShared ? ":shared" : "")
            #expect(try redis.call(["HGET", Self.pending, one.key]) == .text(text), "seed \(seed)")
        }
        #expect(try redis.call(["HLEN", Self.pending]) == .number(Int64(model.pending.count)), "seed \(seed)")
        for one in model.owed { #expect(try redis.call(["HGET", Self.owed, "\(one.fence)"]) == .text("\(one.delta)"), "seed \(seed)") }
        #expect(try redis.call(["HLEN", Self.owed]) == .number(Int64(model.owed.count)), "seed \(seed)")
        for one in model.marks { #expect(try redis.call(["ZSCORE", Self.marks, one.key]) == .text("\(one.time)"), "seed \(seed)") }
        #expect(try redis.call(["ZCARD", Self.marks]) == .number(Int64(model.marks.count)), "seed \(seed)")
    }
}
