import Dispatch
import Foundation
import Glibc
import SeededRandom
import StockGate
import PrivateServers
import StockGateProof
import Synchronization
import Testing

/// The SQL that ships and the simulator's ledger, on the same generated cases: the same replies, errors and rows.
@Suite("The ledger's functions and their model")
struct LedgerContractTests {
    @Test("generated cases, every reply and all rows at each end")
    func generated() throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let database = try RawPostgres(url: server.url)
        try database.script(try ContractSources.ledgerSchema())
        var outcomes: Set<String> = []
        for seed in UInt64(1)...240 {
            try database.script("truncate product_stock, stock_ledger")
            var random = SplitMix64(seed: seed)
            var model = LedgerModel()
            for product in Int64(1)...3 {
                let (stock, isGated, isOnSale) = (Int64(random.number(0...8)), random.happens(0.7), random.happens(0.9))
                model.add(ProductID(product), stock: stock, isGated: isGated, isOnSale: isOnSale)
                _ = try database.query(
                    "insert into product_stock (product_id, stock, initial_stock, is_gated, is_on_sale) values ($1, $2, $2, $3, $4)",
                    ["\(product)", "\(stock)", "\(isGated)", "\(isOnSale)"]
                )
            }
            // What the functions of the version before left: they compared less, and kept no quantity of a closed key.
            let hasLeftovers = seed % 4 == 0
            if hasLeftovers { try addLeftovers(database, &model, &random) }
            for step in 0..<25 {
                let (what, real, expected) = try move(database, &model, &random)
                try #require(real == expected, "seed \(seed), step \(step), \(what)")
                for row in real { outcomes.insert("\(what.prefix { $0 != " " }) \(row.first ?? "")") }
            }
            try compareState(database, model, seed)
            if !hasLeftovers { #expect(model.violation() == nil, "seed \(seed)") }
        }
        for outcome in CommitOutcome.allCases { #expect(outcomes.contains("commit \(outcome.rawValue)"), "\(outcome) was never met") }
        for outcome in IncreaseOutcome.allCases { #expect(outcomes.contains("increase \(outcome.rawValue)"), "\(outcome) was never met") }
        #expect(outcomes.contains("commit SG001"))
        #expect(outcomes.contains("increase SG001"))
        for outcome in 0...5 { #expect(outcomes.contains("adjust \(outcome)"), "adjust \(outcome) was never met") }
    }

    private typealias Compared = (what: String, real: [[String]], expected: [[String]])

    private func move(_ database: RawPostgres, _ model: inout LedgerModel, _ random: inout SplitMix64) throws -> Compared {
        func product() -> ProductID { ProductID(Int64(random.happens(0.95) ? random.number(1...3) : 9)) }
        switch random.number(0...9) {
        case 0...5:
            var batch: [CommitRequest] = []
            // Nearly every batch of a sale has new keys and the fence of now, and is written in one statement.
            let isPlain = random.happens(0.3)
            for _ in 0..<random.number(1...5) {
                let number = isPlain ? random.number(13...200) : random.number(1...12)
                let key = "DEC-\(number)"
                // A key goes in one batch at a time, but for the case that must be rolled back.
                if batch.contains(where: { $0.decrease.key == key }), !random.happens(0.15) { continue }
                let isMissing = isPlain && random.happens(0.08)
                let home = isMissing ? ProductID(9) : random.happens(0.9) ? ProductID(Int64(number % 3 + 1)) : product()
                let fence =
                    random.happens(isPlain ? 0.02 : 0.4)
                    ? 0 : Fence(max(1, (model.product(home)?.fence.rawValue ?? 1) - Int64(random.number(0...(isPlain ? 0 : 1)))))
                batch.append(
                    CommitRequest(
                        decrease: DecreaseRequest(
                            product: home,
                            key: key,
                            orderID: random.happens(0.95) ? 1 : 2,
                            quantity: random.happens(0.9) ? Quantity(Int64(number % 3 + 1)) : 2,
                            isRepeat: false
                        ),
                        fence: fence,
                        // Without a reservation: nothing, or the mark of a first attempt.
                        token: Token(Int64(random.number(fence == 0 ? 0...2 : 1...2))),
                        reserveSent: random.happens(0.5),
                        isFirm: random.happens(0.3)
                    )
                )
            }
            let expected: [[String]]
            do throws(LedgerModel.KeyInUse) {
                expected = try model.commit(batch).map {
                    ["\($0.outcome.rawValue)", "\($0.lockedFence)", $0.bumped ? "t" : "f", "\($0.remaining)", $0.isGated ? "t" : "f"]
                }
            } catch { expected = [["SG001"]] }
            return ("commit \(batch)", try commit(database, batch), expected)
        case 6...7:
            // A server of the version before names no quantity.
            let isOld = random.happens(0.1)
            let batch = (0..<random.number(1...3)).map { _ in
                let number = random.number(1...14)
                let home = random.happens(0.9) ? ProductID(Int64(number % 3 + 1)) : product()
                let quantity = random.happens(0.85) ? number % 3 + 1 : random.number(1...3)
                return IncreaseRequest(
                    product: home,
                    key: "INC-\(number)",
                    orderID: random.happens(0.9) ? 1 : 2,
                    quantity: isOld ? 0 : Quantity(Int64(quantity))
                )
            }
            let expected: [[String]]
            do throws(LedgerModel.KeyInUse) {
                expected = try model.increase(batch).map {
                    [
                        "\($0.outcome.rawValue)", "\($0.lockedFence)", $0.bumped ? "t" : "f", "\($0.quantity)", "\($0.remaining)",
                        $0.isGated ? "t" : "f",
                    ]
                }
            } catch { expected = [["SG001"]] }
            let real = try rows {
                try isOld ? increaseAsBefore(database, batch) : increase(database, batch)
            }
            return ("increase \(batch)", real, expected)
        case 8:
            let product = product()
            if random.happens(0.3) {
                let isOnSale = random.happens(0.7)
                model.setOnSale(product, isOnSale)
                let real = try database.query(
                    "update product_stock set is_on_sale = $2, fence = fence + 1 where product_id = $1 returning fence",
                    ["\(product)", "\(isOnSale)"]
                )
                return ("status", real, model.product(product).map { [["\($0.fence)"]] } ?? [])
            }
            if random.happens(0.3) {
                let above = random.happens(0.1) ? Int64.max : Int64(random.number(0...60))
                let raised = model.raise(product, above: Fence(above))
                let expected = raised.map { [["\(product)", "\($0.fence)", "\($0.stock)", $0.isOnSale ? "t" : "f"]] } ?? []
                return (
                    "raise", try database.query("select * from stock_raise($1, $2)", [list([product.rawValue]), list([above])]), expected
                )
            }
            let expected = model.bump(product).map { [["\(product)", "\($0.fence)", "\($0.stock)", $0.isOnSale ? "t" : "f"]] } ?? []
            guard random.happens(0.5) else {
                return ("bump", try database.query("select * from stock_bump($1)", [list([product.rawValue])]), expected)
            }
            // Without another transaction, one that waits and one that does not are the same.
            let wait = random.happens(0.5) ? "0" : "100"
            let real = try database.query("select * from stock_bump($1, $2)", [list([product.rawValue]), wait])
            return ("bump", real, expected.map { $0 + ["f"] })
        default:
            // Keys of orders are refused.
            let number = random.number(1...4)
            let (product, key) = (product(), "\(random.happens(0.85) ? "ADJ" : random.happens(0.5) ? "INC" : "DEC")-\(number)")
            let quantity = Int64(random.happens(0.5) ? number : random.number(1...9)) * (random.happens(0.6) ? 1 : -1)
            let done = model.adjust(product, key: key, quantity: quantity, maximum: 12)
            let real = try database.query(
                "select * from stock_adjust($1, $2, $3, $4, 'MANUAL')",
                ["\(product)", key, "\(quantity)", "12"]
            )
            return ("adjust \(key) \(quantity)", real, [["\(done.outcome.rawValue)", "\(done.remaining)", done.isGated ? "t" : "f"]])
        }
    }

    private func addLeftovers(_ database: RawPostgres, _ model: inout LedgerModel, _ random: inout SplitMix64) throws {
        for number in 1...14 where random.happens(0.3) {
            let home = ProductID(Int64(number % 3 + 1))
            let quantity = Int64(number % 3 + 1)
            func add(
                _ key: String,
                _ direction: LedgerEntry.Direction,
                _ quantity: Int64,
                order: Int64,
                product: ProductID? = nil
            ) throws {
                let product = product ?? home
                model.addRow("\(key)-\(number)", direction, product, quantity: Quantity(quantity), orderID: order)
                _ = try database.query(
                    """
                    insert into stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
                    values ($1, $2, $3, $4, 'LEFTOVER', $5, 0, 0, 0)
                    """,
                    ["\(product)", "\(key)-\(number)", direction.rawValue, "\(quantity)", "\(order)"]
                )
            }
            if random.happens(0.5) {
                try add("DEC", .out, quantity, order: 1)
                // Another order's increase was taken for this one's.
                if random.happens(0.5) { try add("INC", .in, quantity, order: random.happens(0.5) ? 1 : 2) }
            } else {
                try add("DEC", .closed, 0, order: 1)
                let other = random.happens(0.3) ? ProductID(Int64(random.number(1...3))) : home
                if random.happens(0.5) { try add("INC", .closed, 0, order: random.happens(0.5) ? 1 : 2, product: other) }
            }
        }
    }

    private func increase(_ database: RawPostgres, _ batch: [IncreaseRequest]) throws -> [[String]] {
        try database.query("select * from stock_increase($1, $2, $3, $4, $5)", arrays(batch) + [list(batch.map(\.quantity))])
    }

    private func increaseAsBefore(_ database: RawPostgres, _ batch: [IncreaseRequest]) throws -> [[String]] {
        try database.query("select * from stock_increase($1, $2, $3, $4)", arrays(batch))
    }

    private func arrays(_ batch: [IncreaseRequest]) -> [String] {
        [
            list(batch.map { $0.product.rawValue }), list(batch.map(\.key)), list(batch.map(\.decreaseKey)), list(batch.map(\.orderID)),
        ]
    }

    private func compareState(_ database: RawPostgres, _ model: LedgerModel, _ seed: UInt64) throws {
        let products = try database.query("select product_id, stock, fence from product_stock order by product_id")
        #expect(products == model.products.map { ["\($0.id)", "\($0.stock)", "\($0.fence)"] }, "seed \(seed)")
        let rows = try database.query(
            "select request_id, product_id, direction, quantity, order_id, fence, token, remaining from stock_ledger order by request_id"
        )
        let expected = model.rows.map {
            [
                "\($0.key)", "\($0.product)", $0.direction.rawValue, "\($0.quantity)", "\($0.orderID)", "\($0.fence)", "\($0.token)",
                "\($0.remaining)",
            ]
        }
        #expect(rows == expected, "seed \(seed)")
    }

    private func commit(_ database: RawPostgres, _ batch: [CommitRequest]) throws -> [[String]] {
        try rows {
            try database.query(
                "select * from stock_commit($1, $2, $3, $4, $5, $6, $7)",
                [
                    list(batch.map { $0.decrease.product.rawValue }), list(batch.map(\.decrease.key)), list(batch.map(\.decrease.quantity)),
                    list(batch.map(\.decrease.orderID)), list(batch.map(\.fence)), list(batch.map(\.token)),
                    list(batch.map { ($0.reserveSent ? 1 : 0) + ($0.isFirm ? 2 : 0) }),
                ]
            )
        }
    }

    private func rows(_ query: () throws -> [[String]]) throws -> [[String]] {
        // The set-based way leaves the refusal to the unique index.
        do {
            return try query()
        } catch let failure as RawPostgres.Failure where ["SG001", "23505"].contains(failure.state) {
            return [["SG001"]]
        }
    }

    private func list(_ values: [some CustomStringConvertible]) -> String {
        "{" + values.map { "\"\($0)\"" }.joined(separator: ",") + "}"
    }

    /// Two connections send the same keys of one hot product at the same time. A statement that looks the keys up before it has the row's
    /// lock decrements twice for one ledger row; so does a unique index alone, when its conflict is swallowed.
    @Test("two connections, the same keys at once: one decrement a key", .timeLimit(.minutes(10)))
    func hotKeys() throws {
        let rounds = 1000
        let outcome = try race(rounds: rounds) { connection, _, round in
            let request = CommitRequest(
                decrease: DecreaseRequest(product: ProductID(1), key: "DEC-\(round)", orderID: 1, quantity: 1, isRepeat: false),
                fence: 0,
                token: 0,
                reserveSent: false,
                isFirm: false
            )
            return try commit(connection, [request])[0][0]
        }
        #expect(outcome.replies == ["0": rounds, "2": rounds])
        #expect(outcome.taken == rounds)
        #expect(outcome.rows == rounds)
    }

    /// Two connections take and give back units of one product, each under keys of its own. An increase that reads the stock before it has the
    /// row's lock loses what the other connection did meanwhile.
    @Test("two connections, increases of one product at once: every unit comes back", .timeLimit(.minutes(10)))
    func increasesAtOnce() throws {
        let rounds = 1000
        let outcome = try race(rounds: rounds) { connection, number, round in
            let (order, key) = (Int64(number * rounds + round + 1), "\(number)-\(round)")
            let taken = try commit(
                connection,
                [
                    CommitRequest(
                        decrease: DecreaseRequest(product: ProductID(1), key: "DEC-" + key, orderID: order, quantity: 1, isRepeat: false),
                        fence: 0,
                        token: 0,
                        reserveSent: false,
                        isFirm: false
                    )
                ]
            )
            let request = IncreaseRequest(product: ProductID(1), key: "INC-" + key, orderID: order, quantity: 1)
            return try "\(taken[0][0]) \(increase(connection, [request])[0][0])"
        }
        #expect(outcome.replies == ["0 0": 2 * rounds])
        #expect(outcome.taken == 0)
        #expect(outcome.rows == 4 * rounds)
    }

    /// A decrease and an increase of the same key that names another product: they lock different rows, and only the unique index stands between
    /// them. Either the decrease is committed and the increase refused without a trace, or the increase closed the key before anybody knew it.
    @Test("a decrease and another product's increase at once: one of them is refused", .timeLimit(.minutes(10)))
    func decreaseAgainstWrongIncrease() throws {
        let rounds = 1000
        let outcome = try race(rounds: rounds) { connection, number, round in
            // A member of a batch that was rolled back is tried again, alone.
            for _ in 0..<3 {
                let reply =
                    if number == 0 {
                        try commit(
                            connection,
                            [
                                CommitRequest(
                                    decrease: DecreaseRequest(
                                        product: ProductID(1),
                                        key: "DEC-\(round)",
                                        orderID: 1,
                                        quantity: 1,
                                        isRepeat: false
                                    ),
                                    // As reserved, so that the set-based way is taken.
                                    fence: 1,
                                    token: Token(Int64(round + 1)),
                                    reserveSent: true,
                                    isFirm: false
                                )
                            ]
                        )
                    } else {
                        try rows {
                            try increase(
                                connection,
                                [IncreaseRequest(product: ProductID(2), key: "INC-\(round)", orderID: 1, quantity: 1)]
                            )
                        }
                    }
                if reply != [["SG001"]] { return "\(number == 0 ? "decrease" : "increase") \(reply[0][0])" }
            }
            return "\(number) undecided"
        }
        let taken = outcome.replies["decrease 0"] ?? 0
        #expect(outcome.replies["increase 4"] ?? 0 == taken)
        #expect(outcome.replies["decrease 4"] ?? 0 == rounds - taken)
        #expect(outcome.replies["increase 2"] ?? 0 == rounds - taken)
        #expect(outcome.taken == taken)
        // One row where the decrease won; two closed keys where the increase did.
        #expect(outcome.rows == taken + 2 * (rounds - taken))
        #expect(taken > 0 && taken < rounds, "the two never met")
    }

    /// The control: the same race with one statement whose snapshot is older than its lock.
    @Test("the race would notice a lookup before the lock", .timeLimit(.minutes(10)))
    func hotKeysControl() throws {
        // Where one core has to do for both connections they seldom meet: the race is run again until they have.
        var outcome = try unlocked()
        for _ in 1..<20 where outcome.taken == outcome.rows { outcome = try unlocked() }
        #expect(outcome.rows == 1000)
        #expect(outcome.taken > outcome.rows)
    }

    /// One race of statements whose snapshots are older than their locks.
    private func unlocked() throws -> (replies: [String: Int], taken: Int, rows: Int) {
        try race(rounds: 1000) { connection, _, round in
            _ = try connection.query(
                """
                with locked as (select product_id from product_stock where product_id = 1 for update),
                     known as (select 1 from stock_ledger where request_id = $1),
                     written as (
                       insert into stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
                       select product_id, $1, 'OUT', 1, 'ORDER_DECREMENT', 1, 0, 0, 0 from locked where not exists (select from known)
                       on conflict (request_id) do nothing)
                update product_stock s set stock = s.stock - 1 from locked l
                where s.product_id = l.product_id and not exists (select from known)
                """,
                ["DEC-\(round)"]
            )
            return ""
        }
    }

    /// Two connections begin every round together. Returns how often each reply came, the units taken, and the ledger's rows.
    private func race(
        rounds: Int,
        _ statement: @escaping @Sendable (RawPostgres, _ number: Int, _ round: Int) throws -> String
    ) throws -> (replies: [String: Int], taken: Int, rows: Int) {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let database = try RawPostgres(url: server.url)
        try database.script(try ContractSources.ledgerSchema())
        try database.script("insert into product_stock (product_id, stock, initial_stock) values (1, 100000, 100000), (2, 100000, 100000)")
        let url = server.url
        let failures = Mutex<[String]>([])
        let replies = Mutex<[String: Int]>([:])
        let arrived = Atomic<Int>(0)
        // Threads of their own: from a pool that other tests have taken, the second might never come, and the first waits for it.
        let ended = DispatchSemaphore(value: 0)
        let run: @Sendable (Int) -> Void = { number in
            defer { ended.signal() }
            do {
                let connection = try RawPostgres(url: url)
                for round in 0..<rounds {
                    arrived.add(1, ordering: .sequentiallyConsistent)
                    while arrived.load(ordering: .sequentiallyConsistent) < 2 * (round + 1) { sched_yield() }
                    let reply = try statement(connection, number, round)
                    replies.withLock { $0[reply, default: 0] += 1 }
                }
            } catch {
                failures.withLock { $0.append("\(error)") }
                arrived.add(1_000_000, ordering: .sequentiallyConsistent)
            }
        }
        for number in 0..<2 { Thread.detachNewThread { run(number) } }
        for _ in 0..<2 { ended.wait() }
        #expect(failures.withLock { $0 } == [])
        let stock = Int(try database.query("select stock from product_stock where product_id = 1")[0][0]) ?? 0
        #expect(try database.query("select stock from product_stock where product_id = 2") == [["100000"]])
        #expect(
            try database.query(
                """
                select count(*) from stock_ledger i join stock_ledger d on d.request_id = 'DEC-' || substr(i.request_id, 5)
                where i.request_id like 'INC-%' and (i.product_id, i.order_id, i.quantity) <> (d.product_id, d.order_id, d.quantity)
                """
            ) == [["0"]]
        )
        let rows = Int(try database.query("select count(*) from stock_ledger")[0][0]) ?? 0
        return (replies.withLock { $0 }, 100_000 - stock, rows)
    }
}
