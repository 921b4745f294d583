import CircuitBreaker
import Eventually
import PostgresClient
import RedisClient
import StockGate
import PrivateServers
import Synchronization
import Testing

/// The engine on real servers: the five promises, with faults under load.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct EngineTests {
    /// What must hold after any rush, once it is over: nothing oversold, nothing leaked, every yes in the ledger, Redis exact.
    private func expectSound(
        _ fixture: EngineFixture,
        _ engine: StockEngine,
        _ product: ProductID,
        _ rush: Rush,
        stock: Int64
    ) async throws {
        #expect(rush.unknown.isEmpty, "orders that were never decided")
        let isExact = try await eventually { try await fixture.isExact(product, engine) }
        if !isExact { Issue.record("Redis is not exact: \(String(describing: try await engine.audit(product)))") }
        let books = try await fixture.books(product)
        #expect(books.stock >= 0)
        #expect(books.sold + books.stock == stock)
        #expect(books.rows == Int64(rush.sold.count))
        #expect(Set(rush.sold).count == rush.sold.count)
        for key in rush.sold.prefix(50) {
            let entry = try await engine.ledger.entry(forKey: key)
            #expect(entry?.direction == .out)
        }
    }

    @Test func sellsExactlyWhatThereIs() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 500)
            let engine = try await fixture.startEngine { $0.soldOutMemory = .seconds(10) }
            let rush = await Rush.run(engine, product, orders: 1..<2001)
            #expect(rush.sold.count == 500)
            #expect(rush.refused == 1500)
            try await expectSound(fixture, engine, product, rush, stock: 500)
            #expect(engine.metrics.direct.count == 0)
            // Sold out stays cheap: asked again within the memory's time, Redis is not asked.
            _ = await engine.decrease(DecreaseRequest(product: product, key: "DEC-9000", orderID: 9000, quantity: 1, isRepeat: false))
            let reserves = engine.metrics.reserves.count
            let answer = await engine.decrease(
                DecreaseRequest(product: product, key: "DEC-9001", orderID: 9001, quantity: 1, isRepeat: false)
            )
            #expect(answer == .insufficient(remaining: 0))
            #expect(engine.metrics.reserves.count == reserves)
        }
    }

    @Test func aRepeatGetsTheFirstResultAlsoAfterSoldOutAndWithoutRedisData() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 2)
            let engine = try await fixture.startEngine()
            func ask(_ order: Int64, _ quantity: Int64 = 1, isRepeat: Bool = false) async -> DecreaseAnswer {
                await engine.decrease(
                    DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: Quantity(quantity), isRepeat: isRepeat)
                )
            }
            #expect(await ask(1) == .sold(remaining: 1, replayed: false))
            #expect(await ask(2) == .sold(remaining: 0, replayed: false))
            #expect(await ask(3) == .insufficient(remaining: 0))
            #expect(await ask(1, isRepeat: true) == .sold(remaining: 1, replayed: true))
            #expect(await ask(1, 2, isRepeat: true) == .keyReused)
            // A repeat that was told no is final, also when units come back.
            #expect(await ask(3, isRepeat: true) == .insufficient(remaining: 0))
            let back = IncreaseRequest(product: product, key: "INC-2", orderID: 2, quantity: 1)
            #expect(await engine.increase(back) == .added(quantity: 1, remaining: 1, replayed: false))
            #expect(await engine.increase(back) == .added(quantity: 1, remaining: 1, replayed: true))
            #expect(await ask(3, isRepeat: true) == .keyClosed)
            _ = try fixture.redis.call(["FLUSHALL"])
            #expect(await ask(1) == .sold(remaining: 1, replayed: true))
            #expect(await ask(1, isRepeat: true) == .sold(remaining: 1, replayed: true))
            // Redis forgot the key and reserved for it once more; that unit goes back behind the answer.
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            #expect(await ask(4) == .sold(remaining: 0, replayed: false))
            #expect(try await eventually { try await fixture.isExact(product, engine) })
        }
    }

    @Test func anEmptyCompensationClosesItsKey() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 5)
            let engine = try await fixture.startEngine()
            let back = IncreaseRequest(product: product, key: "INC-7", orderID: 7, quantity: 1)
            #expect(await engine.increase(back) == .nothingToReturn(remaining: 5, replayed: false))
            #expect(await engine.increase(back) == .nothingToReturn(remaining: 5, replayed: true))
            let late = DecreaseRequest(product: product, key: "DEC-7", orderID: 7, quantity: 1, isRepeat: false)
            #expect(await engine.decrease(late) == .keyClosed)
            #expect(try await fixture.books(product).stock == 5)
            #expect(try await eventually { try await fixture.isExact(product, engine) })
        }
    }

    /// An increase that names another order, quantity or product than its decrease leaves the books, Redis and the fence as they were, and the
    /// right one is not in its way, before or after.
    @Test func aWrongIncreaseChangesNothing() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 5)
            let other = try await fixture.addProduct(2, stock: 5)
            let engine = try await fixture.startEngine()
            let decrease = DecreaseRequest(product: product, key: "DEC-7", orderID: 7, quantity: 2, isRepeat: false)
            #expect(await engine.decrease(decrease) == .sold(remaining: 3, replayed: false))
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let right = IncreaseRequest(product: product, key: "INC-7", orderID: 7, quantity: 2)
            var wrong = [right, right, right, right, right]
            wrong[0].orderID = 8
            wrong[1].quantity = 1
            wrong[2].quantity = 1_000_000_000
            wrong[3].product = other
            wrong[4].orderID = .max
            func facts() async throws -> [Int64?] {
                var facts: [Int64?] = []
                for id in [product, other] {
                    let audit = try #require(try await engine.audit(id))
                    facts += [
                        audit.ledger.stock, audit.ledger.fence.rawValue, audit.ledger.returned, audit.gate?.counter,
                        audit.gate?.fence.rawValue,
                    ]
                }
                return facts + [Int64(engine.metrics.applies.count), Int64(engine.metrics.increases.count)]
            }
            let before = try await facts()
            for request in wrong { #expect(await engine.increase(request) == .keyReused, "\(request)") }
            #expect(try await facts() == before)
            #expect(try await engine.ledger.entry(forKey: "INC-7") == nil)
            #expect(await engine.increase(right) == .added(quantity: 2, remaining: 5, replayed: false))
            for request in wrong { #expect(await engine.increase(request) == .keyReused, "a repeat: \(request)") }
            #expect(await engine.increase(right) == .added(quantity: 2, remaining: 5, replayed: true))
            #expect(try await fixture.books(product).stock == 5)
            #expect(try await fixture.books(other).stock == 5)
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            #expect(try await eventually { try await fixture.isExact(other, engine) })
        }
    }

    /// A key that was closed, by a final no or by an increase that came first, is about what was named then.
    @Test func aClosedKeyIsAboutWhatClosedIt() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 5)
            let engine = try await fixture.startEngine()
            let tooMany = DecreaseRequest(product: product, key: "DEC-7", orderID: 7, quantity: 6, isRepeat: true)
            #expect(await engine.decrease(tooMany) == .insufficient(remaining: 5))
            var back = IncreaseRequest(product: product, key: "INC-7", orderID: 8, quantity: 6)
            #expect(await engine.increase(back) == .keyReused)
            back.orderID = 7
            back.quantity = 5
            #expect(await engine.increase(back) == .keyReused)
            back.quantity = 6
            #expect(await engine.increase(back) == .nothingToReturn(remaining: 5, replayed: false))
            #expect(await engine.increase(back) == .nothingToReturn(remaining: 5, replayed: true))
            // Nobody knew DEC-9: who names it first decides what it is about.
            let first = IncreaseRequest(product: product, key: "INC-9", orderID: 9, quantity: 3)
            #expect(await engine.increase(first) == .nothingToReturn(remaining: 5, replayed: false))
            var second = first
            second.quantity = 2
            #expect(await engine.increase(second) == .keyReused)
            #expect(await engine.increase(first) == .nothingToReturn(remaining: 5, replayed: true))
            for quantity in [3, 2] as [Int64] {
                let late = DecreaseRequest(product: product, key: "DEC-9", orderID: 9, quantity: Quantity(quantity), isRepeat: false)
                #expect(await engine.decrease(late) == .keyClosed)
                // Its reservation is given back by then, and the next one does not join it.
                #expect(try await eventually { try await fixture.isExact(product, engine) })
            }
            #expect(try await fixture.books(product).stock == 5)
        }
    }

    /// Somebody wrote another number into the counter. Nobody is oversold, refused for longer than the audit takes, or told nonsense; the audit says
    /// what it found, and the product is resynced.
    @Test(arguments: [
        "-9223372036854775808", "9223372036854775807", "18446744073709551616", "1e300", "many", "",
    ])
    func aCounterOfAnySortIsFoundAndMended(_ text: String) async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 5)
            let other = try await fixture.addProduct(2, stock: 5)
            let engine = try await fixture.startEngine()
            func ask(_ order: Int64, of product: ProductID) async -> DecreaseAnswer {
                await engine.decrease(DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: 1, isRepeat: false))
            }
            #expect(await ask(1, of: product) == .sold(remaining: 4, replayed: false))
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            _ = try fixture.redis.call(["SET", "sg:{1}:stock", text])
            let found = try #require(try await engine.audit(product))
            let counter = try #require(found.gate?.counter ?? (text.isEmpty ? 0 : nil))
            #expect((found.ledger.drift(of: counter) > 0) == (counter > found.ledger.stock))
            for order in Int64(2)...4 {
                switch await ask(order, of: product) {
                case .sold(let remaining, _), .insufficient(let remaining): #expect(remaining >= 0)
                case .notOnSale, .unavailable: break
                case let answer: Issue.record("\(answer)")
                }
            }
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let books = try await fixture.books(product)
            #expect(books.sold + books.stock == 5 && books.stock >= 1)
            #expect(await ask(100, of: product) == .sold(remaining: books.stock - 1, replayed: false))
            #expect(await ask(101, of: other) == .sold(remaining: 4, replayed: false))
            #expect(try await eventually { try await fixture.isExact(other, engine) })
        }
    }

    @Test func theAuditSaysWhatItFound() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 5)
            let findings = Mutex<[Int64?]>([])
            let engine = try await fixture.startEngine(onEvent: { event in
                if case .auditFound(let id, stock: 5, let counter, _, _) = event, id == product { findings.withLock { $0.append(counter) } }
            })
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            _ = try fixture.redis.call(["SET", "sg:{1}:stock", "-9223372036854775808"])
            #expect(try await eventually { findings.withLock { $0 } == [.min] })
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            #expect(engine.metrics.auditFindings.count == 1)
            // A product that is not on sale has no counter; what cannot be read is not taken for that.
            _ = try await engine.ledger.pool.query("update product_stock set is_on_sale = false, fence = fence + 1")
            _ = await engine.resync(product)
            _ = try fixture.redis.call(["SET", "sg:{1}:stock", "many"])
            #expect(try await eventually { findings.withLock { $0 }.count == 2 })
            #expect(try await eventually { try fixture.redis.call(["EXISTS", "sg:{1}:stock"]) == ":0\r\n" })
        }
    }

    /// What Redis owes, holds and remembers for a product at its ends: a resync makes it exact again.
    @Test func whatElseRedisHoldsMayBeAnything() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 50)
            let engine = try await fixture.startEngine()
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let writes = [
                ["HSET", "sg:{1}:owed", "9223372036854775807", "9223372036854775807", "3", "-9223372036854775808", "0", "1"],
                ["HSET", "sg:{1}:pending", "DEC-900", "9223372036854775807:9223372036854775807:9223372036854775807", "DEC-901", "1:1:0"],
                ["ZADD", "sg:{1}:marks", "1e308", "DEC-902", "-inf", "DEC-903"],
                ["HSET", "sg:{1}:meta", "fence", "-9223372036854775808"], ["HSET", "sg:{1}:meta", "fence", "0"],
                ["HSET", "sg:{1}:meta", "stamp", String(repeating: "x", count: 1000)],
            ]
            for (number, write) in writes.enumerated() {
                _ = try fixture.redis.call(write)
                for order in Int64(0)...3 {
                    let order = Int64(number) * 10 + order + 1
                    let request = DecreaseRequest(
                        product: product,
                        key: "DEC-\(order)",
                        orderID: order,
                        quantity: 1,
                        isRepeat: order % 2 == 0
                    )
                    if case .sold(let remaining, _) = await engine.decrease(request) { #expect((0...50).contains(remaining)) }
                }
                #expect(try await eventually { try await fixture.isExact(product, engine) }, "\(write)")
                let books = try await fixture.books(product)
                #expect(books.sold + books.stock == 50)
            }
        }
    }

    @Test func adjustmentsAndUnknownProducts() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 5)
            let direct = try await fixture.addProduct(2, stock: 5, gated: false)
            let engine = try await fixture.startEngine()
            let more = try await engine.adjust(product, key: "a", by: 10, maximum: 100)
            #expect(more.outcome == .done && more.remaining == 15)
            #expect(try await engine.adjust(product, key: "a", by: 10, maximum: 100).outcome == .duplicate)
            #expect(try await engine.adjust(product, key: "a", by: 11, maximum: 100).outcome == .keyReused)
            #expect(try await engine.adjust(product, key: "b", by: -16, maximum: 100).outcome == .belowZero)
            #expect(try await engine.adjust(product, key: "c", by: 86, maximum: 100).outcome == .aboveMaximum)
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let missing = DecreaseRequest(product: ProductID(99), key: "DEC-1", orderID: 1, quantity: 1, isRepeat: false)
            #expect(await engine.decrease(missing) == .productMissing)
            let rush = await Rush.run(engine, direct, orders: 100..<120)
            #expect(rush.sold.count == 5 && rush.refused == 15)
            #expect(try await fixture.books(direct).stock == 0)
        }
    }

    @Test func redisKilledAndBackUnderLoad() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 3000)
            let engine = try await fixture.startEngine()
            let wasOpen = Mutex(false)
            async let running = Rush.run(engine, product, orders: 1..<20_001) { order in
                if order == 500 { fixture.redis.kill() }
                if order > 500, engine.breaker.state == .open { wasOpen.withLock { $0 = true } }
            }
            #expect(try await eventually { wasOpen.withLock { $0 } }, "the breaker never opened")
            try fixture.redis.restart()
            let rush = await running
            #expect(rush.sold.count == 3000)
            #expect(try await eventually { engine.breaker.state == .closed || probe(engine) })
            #expect(engine.metrics.direct.count > 0)
            try await expectSound(fixture, engine, product, rush, stock: 3000)
        }
    }

    @Test func redisIsUsedAgainWithoutABuyer() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 100)
            // Longer than the test: nothing but the checks ends half-open.
            let breaker = try CircuitBreakerConfiguration { values in
                values.window = .time(seconds: 2)
                values.minimumNumberOfCalls = 5
                values.waitInOpen = .constant(.milliseconds(200))
                values.movesToHalfOpenByItself = true
                values.permittedCallsInHalfOpen = 10
                values.maximumTimeInHalfOpen = .seconds(600)
            }
            let engine = try await fixture.startEngine { $0.breaker = breaker }
            fixture.redis.kill()
            var order: Int64 = 0
            #expect(
                try await eventually {
                    order += 1
                    _ = await engine.decrease(
                        DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: 1, isRepeat: false)
                    )
                    return engine.breaker.state == .open
                }
            )
            // A product that is made meanwhile is gated with the others, and is no finding of the audit.
            let made = try await fixture.addProduct(2, stock: 5)
            #expect(try await eventually { engine.gatedProductCount == 2 })
            try fixture.redis.restart()
            #expect(try await eventually { engine.breaker.state == .closed })
            for id in [product, made] { #expect(try await eventually { try await fixture.isExact(id, engine) }) }
            // One that is made while an operator holds the breaker open.
            engine.breaker.transition(to: .forceOpen)
            let another = try await fixture.addProduct(3, stock: 5)
            #expect(try await eventually { engine.gatedProductCount == 3 })
            engine.breaker.transition(to: .close)
            #expect(try await eventually { engine.breaker.state == .closed })
            #expect(try await eventually { try await fixture.isExact(another, engine) })
            #expect(engine.metrics.auditFindings.count == 0)
        }
    }

    /// Half-open ends by calls: one more.
    private func probe(_ engine: StockEngine) -> Bool {
        Task {
            await engine.decrease(
                DecreaseRequest(product: ProductID(1), key: "DEC-999999", orderID: 999_999, quantity: 1_000_000, isRepeat: false)
            )
        }
        return false
    }

    @Test(arguments: ["flushed", "old copy", "paused"])
    func redisLosesItsMindUnderLoad(fault: String) async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 2000)
            let engine = try await fixture.startEngine {
                guard fault == "paused" else { return }
                // A Redis that hangs is found out by the time that its calls take.
                $0.redis.commandTimeout = .milliseconds(500)
                $0.redis.silenceLimit = .seconds(1)
            }
            var sold: [String] = []
            let before = await Rush.run(engine, product, orders: 1..<200)
            sold += before.sold
            let copy = try fixture.redis.saveDumpCopy()
            let reached = Mutex<Int64>(0)
            async let running = Rush.run(engine, product, orders: 1000..<6001) { order in
                reached.withLock { $0 = max($0, order) }
            }
            #expect(try await eventually { reached.withLock { $0 } > 1300 })
            switch fault {
            case "flushed": _ = try fixture.redis.call(["FLUSHALL"])
            case "old copy": try fixture.redis.restart(fromDump: copy)
            default:
                fixture.redis.pause()
                // The buyers of a fast machine may all have been served before the pause.
                #expect(try await eventually { engine.breaker.state != .closed || probe(engine) })
                fixture.redis.resume()
            }
            var rush = await running
            rush.sold += sold
            #expect(rush.sold.count == 2000)
            #expect(try await eventually { engine.breaker.state == .closed || probe(engine) })
            try await expectSound(fixture, engine, product, rush, stock: 2000)
        }
    }

    @Test func postgresKilledAndBackUnderLoad() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 3000)
            let engine = try await fixture.startEngine()
            let reached = Mutex<Int64>(0)
            async let running = Rush.run(engine, product, orders: 1..<6001) { order in reached.withLock { $0 = max($0, order) } }
            #expect(try await eventually { reached.withLock { $0 } > 800 })
            fixture.postgres.kill()
            try fixture.postgres.restart()
            let rush = await running
            try await expectSound(fixture, engine, product, rush, stock: 3000)
            #expect(rush.sold.count == 3000)
        }
    }

    @Test func twoServersThatDisagreeAboutRedis() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 2000)
            let first = try await fixture.startEngine()
            let second = try await fixture.startEngine()
            second.breaker.transition(to: .forceOpen)
            async let one = Rush.run(first, product, orders: 1..<3001, concurrency: 32)
            async let other = Rush.run(second, product, orders: 10_001..<13_001, concurrency: 32)
            var rush = await one
            let more = await other
            rush.sold += more.sold
            rush.unknown += more.unknown
            #expect(rush.sold.count == 2000)
            second.breaker.transition(to: .close)
            try await expectSound(fixture, first, product, rush, stock: 2000)
        }
    }

    /// Asked between the commit of a return and its arrival in Redis, Redis still says *sold out*. To remember that would keep the unit from everybody.
    @Test func whatIsRememberedAsSoldOutEndsWhenRedisHasTheReturnedUnit() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 1)
            let engine = try await fixture.startEngine { $0.soldOutMemory = .seconds(600) }
            func ask(_ order: Int64, _ quantity: Int64 = 1) async -> DecreaseAnswer {
                await engine.decrease(
                    DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: Quantity(quantity), isRepeat: false)
                )
            }
            #expect(await ask(1) == .sold(remaining: 0, replayed: false))
            let isOver = Atomic(false)
            async let hammer: Void = {
                var order: Int64 = 1_000_000
                // Ends with the returns; nobody sells two units here.
                while !isOver.load(ordering: .relaxed) {
                    order += 1
                    _ = await ask(order, 2)
                    // With one core there is one thread for all tasks, and what is remembered is answered at once.
                    await Task.yield()
                }
            }()
            for order in Int64(1)...100 {
                let answer = await engine.increase(IncreaseRequest(product: product, key: "INC-\(order)", orderID: order, quantity: 1))
                guard case .added = answer else {
                    Issue.record("\(answer)")
                    break
                }
                // Within a tenth of the memory's time. Only the engine's own loop knows when it has heard that the unit is there.
                let isSold = try await eventually(within: .seconds(60)) { await ask(order + 1) == .sold(remaining: 0, replayed: false) }
                guard isSold else {
                    Issue.record("unit \(order) is not sold again")
                    break
                }
            }
            isOver.store(true, ordering: .relaxed)
            await hammer
        }
    }

    @Test func returnsUnderLoadAreSoldAgain() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 300)
            let engine = try await fixture.startEngine()
            let first = await Rush.run(engine, product, orders: 1..<301)
            #expect(first.sold.count == 300)
            async let second = Rush.run(engine, product, orders: 1000..<4000, concurrency: 16)
            var returned = 0
            for order in Int64(1)...100 {
                let answer = await engine.increase(IncreaseRequest(product: product, key: "INC-\(order)", orderID: order, quantity: 1))
                if case .added = answer { returned += 1 }
            }
            #expect(returned == 100)
            var rush = await second
            rush.sold += first.sold
            // What came back after the rush had passed by is sold to those who come later: once Redis has been told of it, to the next ones.
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let deadline = ContinuousClock.now + .seconds(60)
            var next: Int64 = 5000
            while rush.sold.count < 400, ContinuousClock.now < deadline {
                rush.sold += await Rush.run(engine, product, orders: next..<next + 20).sold
                next += 20
            }
            #expect(rush.sold.count == 400)
            let isExact = try await eventually { try await fixture.isExact(product, engine) }
            #expect(isExact)
            let books = try await fixture.books(product)
            #expect(books.stock == 0 && books.sold == 300 && books.rows == 400)
        }
    }

    /// The time of the reservation is that of the process that made it, whose clock may be ahead.
    @Test(arguments: [1, 9_999_999_999_999])
    func anAbandonedReservationIsSwept(time: Int64) async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 10)
            let engine = try await fixture.startEngine()
            // As a process that died between reserve and commit leaves it.
            let lowered = try fixture.redis.call(["DECRBY", "sg:{1}:stock", "4"])
            _ = try fixture.redis.call(["HSET", "sg:{1}:pending", "DEC-dead", "77:4:\(time)"])
            // The gate is not exact now; to ask the engine for it may take longer than the sweep does.
            #expect(lowered.contains("6"), "\(lowered)")
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            #expect(engine.metrics.swept.count >= 1)
        }
    }

    /// The sweep, the audit and pruning ask Redis about many products in one call. The keys of one of them cannot be read.
    @Test func aBadProductHarmsNoOtherInItsCall() async throws {
        try await withFixture { fixture in
            try await fixture.addProducts(70, stock: 10)
            let engine = try await fixture.startEngine {
                $0.pruneInterval = .milliseconds(200)
                $0.markRetention = .seconds(3600)
            }
            let (bad, good) = (ProductID(7), [ProductID(1), ProductID(8), ProductID(40), ProductID(70)])
            for id in Int64(1)...70 { #expect(try await eventually { try await fixture.isExact(ProductID(id), engine) }) }
            try await fixture.holdingTheRow(of: bad) { () async throws -> Void in
                // Its keys cannot be made anew before its row is free.
                let spoil = "for i = 1, 2 do redis.call('DEL', KEYS[i]) redis.call('RPUSH', KEYS[i], 'somebody') end return 1"
                #expect(try fixture.redis.call(["EVAL", spoil, "2", "sg:{7}:pending", "sg:{7}:marks"]) == ":1\r\n")
                for id in good {
                    _ = try fixture.redis.call(["DECRBY", "sg:{\(id)}:stock", "4"])
                    _ = try fixture.redis.call(["HSET", "sg:{\(id)}:pending", "DEC-dead", "77:4:1"])
                    // More than one call prunes of one product.
                    let many = "for i = 1, 700 do redis.call('ZADD', KEYS[1], i, 'DEC-old-' .. i) end return 1"
                    #expect(try fixture.redis.call(["EVAL", many, "1", "sg:{\(id)}:marks"]) == ":1\r\n")
                }
                for id in good {
                    #expect(try await eventually { try await fixture.isExact(id, engine) }, "\(id) was not swept")
                    let isPruned = try await eventually { try fixture.redis.call(["EXISTS", "sg:{\(id)}:marks"]) == ":0\r\n" }
                    #expect(isPruned, "\(id) was not pruned")
                }
                #expect(engine.breakers.allSatisfy { $0.state == .closed })
            }
            #expect(try await eventually { try await fixture.isExact(bad, engine) })
        }
    }

    @Test func theAuditFindsWhatNobodyElseWould() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 10)
            let engine = try await fixture.startEngine()
            // As a process that died between commit and apply leaves it: the same fence, another stock.
            _ = try fixture.redis.call(["INCRBY", "sg:{1}:stock", "3"])
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            #expect(engine.metrics.auditFindings.count >= 1)
        }
    }

    /// One round of the audit looks at all three: a product whose keys cannot be read takes neither of the others' findings along.
    @Test func aBadProductHidesNothingFromTheAudit() async throws {
        try await withFixture { fixture in
            for id in Int64(1)...3 { _ = try await fixture.addProduct(id, stock: 10) }
            let found = Mutex<[ProductID]>([])
            let engine = try await fixture.startEngine(onEvent: { event in
                if case .auditFound(let id, _, _, _, _) = event { found.withLock { $0.append(id) } }
            })
            for id in Int64(1)...3 { #expect(try await eventually { try await fixture.isExact(ProductID(id), engine) }) }
            try await fixture.holdingTheRow(of: ProductID(2)) { () async throws -> Void in
                // Its keys cannot be made anew before its row is free, so every audit meets them, or leaves it out.
                let spoil = "redis.call('DEL', KEYS[1]) return redis.call('RPUSH', KEYS[1], 'somebody')"
                _ = try fixture.redis.call(["EVAL", spoil, "1", "sg:{2}:meta"])
                for id in [1, 3] { _ = try fixture.redis.call(["INCRBY", "sg:{\(id)}:stock", "5"]) }
                #expect(try await eventually { found.withLock { Set($0) } == [ProductID(1), ProductID(3)] })
                for id in [Int64(1), 3] { #expect(try await eventually { try await fixture.isExact(ProductID(id), engine) }) }
                #expect(engine.breaker.state == .closed && engine.directProductCount == 1)
            }
            #expect(try await eventually { try await fixture.isExact(ProductID(2), engine) && engine.directProductCount == 0 })
        }
    }

    /// A product that was made a moment ago differs until its install, which has been asked for: that is no finding.
    @Test func theAuditCountsNothingThatWaitsForItsResync() async throws {
        try await withFixture { fixture in
            let other = try await fixture.addProduct(2, stock: 10)
            let found = Mutex<[ProductID]>([])
            let engine = try await fixture.startEngine {
                $0.gatedRefresh = .seconds(600)
            } onEvent: { event in
                if case .auditFound(let id, _, _, _, _) = event { found.withLock { $0.append(id) } }
            }
            #expect(try await eventually { try await fixture.isExact(other, engine) })
            let product = try await fixture.addProduct(1, stock: 10)
            try await fixture.holdingTheRow(of: product) { () async throws -> Void in
                engine.setGated(product, true)
                engine.ask(product, forced: false)
                #expect(try await eventually { engine.metrics.resyncsFailed.count >= 1 })
                // Each finding of the other one is an audit that looked at both.
                for round in 1...2 {
                    #expect(try await eventually { try await fixture.isExact(other, engine) })
                    _ = try fixture.redis.call(["INCRBY", "sg:{2}:stock", "\(round)"])
                    #expect(try await eventually { found.withLock { $0.count { $0 == other } } == round })
                }
            }
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            #expect(found.withLock { $0 } == [other, other])
            #expect(engine.metrics.auditFindings.count == 2)
            #expect(try await fixture.fences()[product] == 2)
        }
    }

    @Test func tooMuchInFlightIsToldSoAtOnce() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 10_000)
            let engine = try await fixture.startEngine { $0.maximumInFlight = 8 }
            fixture.postgres.pause()
            let answers = await withTaskGroup(of: DecreaseAnswer.self) { group in
                for order in Int64(1)...20 {
                    group.addTask {
                        await engine.decrease(
                            DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: 1, isRepeat: false)
                        )
                    }
                }
                var overloaded = 0
                // The twelve that are turned away come back while the ledger is still frozen.
                for _ in 0..<12 { if await group.next() == .unavailable(.overloaded) { overloaded += 1 } }
                fixture.postgres.resume()
                var sold = 0
                for await answer in group { if case .sold = answer { sold += 1 } }
                return (overloaded, sold)
            }
            #expect(answers.0 == 12)
            #expect(answers.1 == 8)
            #expect(engine.metrics.overloaded.count == 12)
            #expect(try await eventually { try await fixture.isExact(product, engine) })
        }
    }
}
