import SeededRandom
import StockContract
import StrictJSON

#if DEBUG
    import CLibPQ
    @testable import MessageBroker
    @testable import OrderServer
    @testable import PostgresClient
    @testable import RedisClient
    @testable import ServerKit
    @testable import StockGate
    import StockGateProof

    /// What Redis sends, as hiredis' reader takes it: whole, and in pieces cut anywhere.
    struct ReplyFuzz: FuzzReader {
        let name = "resp"
        let what = "bytes from Redis, whole and in pieces"
        let examples: [[UInt8]] = [
            "+OK\r\n", "-ERR no\r\n", ":9223372036854775807\r\n", "$5\r\nhello\r\n", "$-1\r\n", "*-1\r\n", "*0\r\n",
            "*4\r\n:7\r\n:0\r\n:12\r\n:97\r\n",
            "*2\r\n$1\r\n0\r\n*2\r\n$3\r\nDEC\r\n:-1\r\n", "*5\r\n$2\r\nm1\r\n$3\r\nd:m\r\n:4\r\n$3\r\n100\r\n:0\r\n",
            "-NOSCRIPT No matching script.\r\n+PONG\r\n:1\r\n",
        ].map { Array($0.utf8) }

        private struct Seen: Equatable {
            var replies: [RedisValue] = []
            var failed = false
        }

        private func read(_ bytes: [UInt8], pieces: [Int]) -> Seen? {
            guard let reader = ReplyReader(maximumBytes: 65_536, maximumElements: 4_096) else { return nil }
            var seen = Seen()
            var start = 0
            for length in pieces {
                let piece = Array(bytes[start..<start + length])
                start += length
                piece.withUnsafeBytes { reader.feed($0) }
                reading: while true {
                    switch reader.next() {
                    case .needMore: break reading
                    case .reply(let value): seen.replies.append(value)
                    case .failed:
                        seen.failed = true
                        break reading
                    }
                }
                if seen.failed { break }
            }
            return seen
        }

        func violation(_ bytes: [UInt8]) -> String? {
            var random = SplitMix64(seed: bytes.seed)
            var pieces: [Int] = []
            var left = bytes.count
            while left > 0 {
                pieces.append(Int.random(in: 1...max(1, min(left, 40)), using: &random))
                left -= pieces[pieces.count - 1]
            }
            guard let whole = read(bytes, pieces: [bytes.count]), let parts = read(bytes, pieces: pieces) else { return nil }
            return whole == parts ? nil : "whole: \(whole), in pieces of \(pieces): \(parts)"
        }
    }

    /// What the gate's scripts reply, and what a decrease, a resync and an audit make of it.
    struct GateReplyFuzz: FuzzReader {
        let name = "gate"
        let what = "replies of the gate's scripts, and what decreases and resyncs make of them"
        let examples: [[UInt8]] = [
            "*4\r\n:7\r\n:0\r\n:12\r\n:97\r\n", "*7\r\n:7\r\n:1\r\n:12\r\n:3\r\n:2\r\n:0\r\n:0\r\n", "*4\r\n:0\r\n:3\r\n:0\r\n:0\r\n",
            "*4\r\n:9\r\n:5\r\n:0\r\n:0\r\n", "*1\r\n:0\r\n", "*3\r\n:7\r\n:12\r\n:97\r\n",
        ].map { Array($0.utf8) }

        func violation(_ bytes: [UInt8]) -> String? {
            guard let reader = ReplyReader(maximumBytes: 65_536, maximumElements: 4_096) else { return nil }
            bytes.withUnsafeBytes { reader.feed($0) }
            var random = SplitMix64(seed: bytes.seed)
            while case .reply(let value) = reader.next() {
                for count in 0...3 {
                    let quantities = (0..<count).map { _ in Mutation.pick([Quantity(1), 3, 1_000_000_000], &random) }
                    guard var replies = ReserveReplies(value, quantities: quantities) else { continue }
                    for quantity in quantities {
                        if let reply = replies.next(quantity), let what = decrease(reply, &random) { return what }
                    }
                }
            }
            return resync(&random)
        }

        private static let numbers: [Int64] = [.min, .min + 1, -1, 0, 1, 7, .max - 1, .max]

        private func decrease(_ reply: ReserveReply, _ random: inout SplitMix64) -> String? {
            let request = DecreaseRequest(
                product: ProductID(1),
                key: "DEC-1",
                orderID: Mutation.pick(Self.numbers, &random),
                quantity: Mutation.pick([1, 3, 1_000_000_000], &random),
                isRepeat: Bool.random(using: &random)
            )
            var reservation = Reservation(request)
            var step = reservation.began(throughGate: true)
            var answers = 0
            for _ in 0..<32 {
                if let answer = step.answer {
                    answers += 1
                    if case .insufficient(let remaining) = answer, remaining < 0 { return "a buyer is told that \(remaining) are left" }
                }
                if reservation.isFinished { return answers == 1 ? nil : "\(answers) answers after \(reply)" }
                switch step.action {
                case .reserve: step = reservation.reserveReplied(reply)
                case .awaitResync: step = reservation.resyncEnded(loaded: Bool.random(using: &random))
                case .lookUp: step = reservation.lookedUp(nil)
                case .commit:
                    step = reservation.committed(
                        CommitReply(
                            outcome: Mutation.pick(
                                [CommitOutcome.committed, .duplicateMine, .insufficient, .keyClosed, .notOnSale, .productMissing],
                                &random
                            ),
                            lockedFence: Fence(Mutation.pick(Self.numbers, &random)),
                            bumped: Bool.random(using: &random),
                            remaining: Mutation.pick([0, 1, .max], &random),
                            isGated: Bool.random(using: &random)
                        )
                    )
                case .apply: step = reservation.applied(Mutation.pick([ApplyReply.applied, .behind, .passed], &random))
                case .bump: step = reservation.bumped()
                case .settle, .release, .abandon, .finish: return reservation.isFinished ? nil : "\(step.action) without an end"
                }
            }
            return reservation.isFinished ? (answers == 1 ? nil : "\(answers) answers after \(reply)") : "it never ends after \(reply)"
        }

        /// What the ledger says of a product whose fence it has raised.
        private func raised(_ random: inout SplitMix64) -> Resync.LedgerState {
            Resync.LedgerState(
                fence: Fence(Mutation.pick(Self.numbers, &random)),
                stock: Mutation.pick(Self.numbers, &random),
                isOnSale: true
            )
        }

        private func resync(_ random: inout SplitMix64) -> String? {
            var resync = Resync(forced: Bool.random(using: &random))
            var action = resync.began()
            for _ in 0..<32 {
                switch action {
                case .look:
                    action = resync.looked(
                        GateView(
                            dataset: "d",
                            stamp: Mutation.pick([String?.none, "d", "e"], &random),
                            fence: Fence(Mutation.pick(Self.numbers, &random)),
                            counter: Mutation.pick(Self.numbers.map { Int64?.some($0) } + [nil], &random),
                            pending: Mutation.pick([0, 1, .max, .min], &random)
                        )
                    )
                case .readFence: action = resync.fenceRead(Mutation.pick(Self.numbers.map { Fence?.some(Fence($0)) } + [nil], &random))
                case .bump: action = resync.bumped(raised(&random))
                case .raise: action = resync.raised(raised(&random))
                case .install:
                    action = resync.installReplied(
                        Mutation.pick([InstallReply.installed, .newer, .datasetChanged, .foreign], &random)
                    )
                case .finish: return resync.isFinished ? nil : "a resync finishes without an end"
                }
            }
            return "a resync never ends"
        }
    }

    /// Rows of PostgreSQL in its binary format, with cells of any bytes.
    struct RowFuzz: FuzzReader {
        let name = "rows"
        let what = "cells of PostgreSQL in its binary format, and orders out of rows"
        let examples: [[UInt8]] = {
            func word(_ value: Int32) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }
            func long(_ value: Int64) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }
            return [
                long(7) + Array("CONFIRMED".utf8) + long(823_166_999_000_000) + [1],
                word(1) + word(0) + word(20) + word(2) + word(1) + word(8) + long(1) + word(8) + long(.max),
                word(1) + word(1) + word(25) + word(3) + word(1) + word(2) + Array("ab".utf8) + word(-1) + word(0),
                word(0) + word(0) + word(20), [1] + Array(#"{"a":1}"#.utf8),
                Array(repeating: 7, count: 16), word(7), [0, 7],
            ]
        }()

        func violation(_ bytes: [UInt8]) -> String? {
            let types: [UInt32] = [
                TypeID.bool, TypeID.bytea, TypeID.int8, TypeID.int2, TypeID.int4, TypeID.text, TypeID.oid, TypeID.json, TypeID.float4,
                TypeID.float8, TypeID.int2Array,
                TypeID.int4Array, TypeID.textArray, TypeID.varcharArray, TypeID.int8Array, TypeID.varchar, TypeID.timestamp,
                TypeID.timestamptz, TypeID.uuid, TypeID.jsonb, 99_999, 1,
            ]
            for type in types {
                bytes.withUnsafeBytes { bytes in
                    let cell = PostgresCell(bytes: bytes, type: type)
                    _ = try? Int64(cell)
                    _ = try? Double(cell)
                    _ = try? Bool(cell)
                    _ = try? String(cell)
                    _ = try? [UInt8](cell)
                    _ = try? [Int64](cell)
                    _ = try? [String?](cell)
                    if let stamp = try? PostgresTimestamp(cell) {
                        let time = Timestamp(microsecondsSinceEpoch: stamp.microsecondsSinceEpoch)
                        _ = (
                            time.description, Timestamp.now.microseconds(since: time), time.microseconds(since: .now),
                            PostgresTimestamp.postgresMicros(stamp.microsecondsSinceEpoch)
                        )
                    }
                }
            }
            return order(bytes)
        }

        /// An order out of a row whose cells are pieces of the bytes, most of them of the length that their type has.
        private func order(_ bytes: [UInt8]) -> String? {
            let types: [UInt32] = [
                TypeID.int8, TypeID.int8, TypeID.varchar, TypeID.varchar, TypeID.int8, TypeID.int8, TypeID.varchar, TypeID.varchar,
                TypeID.varchar, TypeID.int8, TypeID.timestamptz,
                TypeID.varchar, TypeID.timestamptz, TypeID.timestamptz, TypeID.int8, TypeID.bool,
            ]
            guard let result = PQmakeEmptyPGresult(nil, PGRES_TUPLES_OK) else { return nil }
            defer { PQclear(result) }
            var name = Array("c".utf8CString)
            let isMade = name.withUnsafeMutableBufferPointer { name in
                var attributes = types.map { type in
                    PGresAttDesc(name: name.baseAddress, tableid: 0, columnid: 0, format: 1, typid: type, typlen: -1, atttypmod: -1)
                }
                return PQsetResultAttrs(result, Int32(types.count), &attributes)
            }
            guard isMade == 1 else { return nil }
            var random = SplitMix64(seed: bytes.seed)
            for (column, type) in types.enumerated() {
                var cell: [UInt8]
                switch type {
                case TypeID.bool: cell = [UInt8(truncatingIfNeeded: bytes.count)]
                case TypeID.varchar:
                    cell = column == 6 && random.next() % 8 != 0 ? Array("PENDING".utf8) : Array(bytes.prefix(Int(random.next() % 40)))
                default:
                    let start = Int(random.next() % UInt64(bytes.count + 1))
                    cell = Array(bytes[start...].prefix(8))
                    if random.next() % 16 != 0 { cell += Array(repeating: 0xFF, count: 8 - cell.count) }
                }
                let length = random.next() % 32 == 0 ? -1 : Int32(cell.count)
                _ = cell.withUnsafeMutableBytes { cell in
                    PQsetvalue(result, 0, Int32(column), cell.baseAddress?.assumingMemoryBound(to: CChar.self), length)
                }
            }
            let storage = ResultStorage(copying: result)
            guard storage.rows == 1, let order = try? Order(row: PostgresRow(storage: storage, row: 0)) else { return nil }
            return order.writtenAgain()
        }
    }

    /// Frames of a message's content, in any order and of any announced size.
    struct ContentFuzz: FuzzReader {
        let name = "content"
        let what = "method, header and body frames of deliveries, in any order"
        let examples: [[UInt8]] = [[0, 1, 4, 2, 4], [0, 1, 0, 0, 1, 3, 2, 1, 2, 2], [0, 1, 255, 2, 200]]

        func violation(_ bytes: [UInt8]) -> String? {
            var assembler = ContentAssembler<Int, Int>(maximumBodyBytes: 64)
            var rest = bytes[...]
            var expected: UInt64?
            while let kind = rest.popFirst() {
                let step: ContentAssembler<Int, Int>.Step
                switch kind % 3 {
                case 0: step = assembler.received(method: 1)
                case 1:
                    let size = UInt64(rest.popFirst() ?? 0)
                    let announced = size > 250 ? UInt64.max - (255 - size) : size
                    step = assembler.received(properties: 1, bodySize: announced)
                    if case .outOfTurn = step {} else { expected = announced }
                default:
                    let fragment = Array(rest.prefix(Int(rest.first ?? 0)))
                    step = fragment.withUnsafeBytes { assembler.received(fragment: $0) }
                }
                if case .complete(let content) = step {
                    guard assembler.isIdle else { return "complete, and not idle" }
                    if let body = content.body, UInt64(body.count) != expected {
                        return "a body of \(body.count) bytes, \(expected ?? 0) were announced"
                    }
                    if content.body == nil, expected ?? 0 <= 64 { return "a body within the bound was dropped" }
                }
            }
            return nil
        }
    }
#endif
