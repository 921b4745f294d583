import CircuitBreaker
import Eventually
import NIOCore
import NIOPosix
import PostgresClient
import StockGate
import PrivateServers
import Synchronization
import Testing

/// Somebody's open transaction holds a product's row. The others' buyers must not feel it.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct LockedRowTests {
    private func lock(_ fixture: EngineFixture, _ products: ProductID...) async throws -> RowLock {
        let ids = products.map { String($0.rawValue) }.joined(separator: ",")
        return try await RowLock(url: fixture.postgres.url, "select 1 from product_stock where product_id in (\(ids)) for update")
    }

    private func decrease(_ product: ProductID, _ order: Int64, isRepeat: Bool = false) -> DecreaseRequest {
        DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: 1, isRepeat: isRepeat)
    }

    private func increase(_ product: ProductID, _ order: Int64) -> IncreaseRequest {
        IncreaseRequest(product: product, key: "INC-\(order)", orderID: order, quantity: 1)
    }

    private func impatient(_ engine: StockEngine, _ request: DecreaseRequest) async -> DecreaseAnswer {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        return await withCheckedContinuation { continuation in
            loop.execute { engine.decrease(request, on: loop, isPatient: false) { continuation.resume(returning: $0) } }
        }
    }

    private func impatient(_ engine: StockEngine, _ request: IncreaseRequest) async -> IncreaseAnswer {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        return await withCheckedContinuation { continuation in
            loop.execute { engine.increase(request, on: loop, isPatient: false) { continuation.resume(returning: $0) } }
        }
    }

    private final class Answers: Sendable {
        let told = Mutex<[DecreaseAnswer]>([])
    }

    enum Way: CaseIterable { case gated, direct, breakerOpen }

    /// The lock is held until all of the others have been answered: whoever waited for it would never be.
    @Test(arguments: Way.allCases, [1, 4])
    func theOthersSellAndCancel(way: Way, lanes: Int) async throws {
        try await withFixture { fixture in
            let stuck = try await fixture.addProduct(1, stock: 100, gated: way != .direct)
            var others: [ProductID] = []
            for id in Int64(2)...6 { others.append(try await fixture.addProduct(id, stock: 100, gated: way != .direct)) }
            let engine = try await fixture.startEngine {
                $0.ledger.lanes = lanes
                $0.ledger.postgres.lockTimeout = .seconds(100)
                $0.answerWithin = .seconds(110)
            }
            if way == .breakerOpen { engine.breaker.transition(to: .forceOpen) }
            #expect(await engine.decrease(decrease(stuck, 1)) == .sold(remaining: 99, replayed: false))
            let lock = try await lock(fixture, stuck)
            // Ten wait for the locked row, and one wants to give back.
            async let waiting = withTaskGroup(of: DecreaseAnswer.self) { group in
                for order in Int64(11)...20 { group.addTask { await engine.decrease(decrease(stuck, order)) } }
                return await group.reduce(into: [DecreaseAnswer]()) { $0.append($1) }
            }
            async let returning = engine.increase(increase(stuck, 1))
            let sold = await withTaskGroup(of: Bool.self) { group in
                for (index, other) in others.enumerated() {
                    for order in Int64(100 * (index + 1))..<Int64(100 * (index + 1) + 20) {
                        group.addTask {
                            guard case .sold = await engine.decrease(decrease(other, order)) else { return false }
                            guard case .added = await engine.increase(increase(other, order)) else { return false }
                            return true
                        }
                    }
                }
                return await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
            }
            #expect(sold == 100)
            #expect(try await eventually { engine.ledger.lockedProducts.isLocked(stuck.rawValue) })
            #expect(engine.ledger.lockedProducts.snapshot().locked == 1)
            // Whoever is not patient is told at once, and with the breaker's gate its reservation goes back.
            #expect(await impatient(engine, decrease(stuck, 30)) == .unavailable(.lockTimeout))
            #expect(await impatient(engine, increase(stuck, 30)) == .unavailable(.lockTimeout))
            await lock.end()
            let late = await waiting
            #expect(late.filter { if case .sold(_, replayed: false) = $0 { true } else { false } }.count == 10, "\(late)")
            let returned = await returning
            if case .added(quantity: 1, _, replayed: false) = returned {} else { Issue.record("\(returned)") }
            #expect(try await eventually { engine.ledger.lockedProducts.isEmpty })
            let books = try await fixture.books(stuck)
            #expect(books.sold == 10)
            #expect(books.stock == 90)
            for other in others {
                let books = try await fixture.books(other)
                #expect(books.stock == 100)
                #expect(books.rows == 20)
            }
            if way == .gated { #expect(try await eventually { try await fixture.isExact(stuck, engine) }) }
        }
    }

    /// A lock that outlasts the bound: *lock timeout*, nothing taken, and the operator hears which product it is.
    @Test func theLockedProductsOwnRequestsAreToldLockTimeout() async throws {
        try await withFixture { fixture in
            let stuck = try await fixture.addProduct(7, stock: 100)
            let events = Mutex<[String]>([])
            let engine = try await fixture.startEngine {
                $0.ledger.postgres.lockTimeout = .milliseconds(200)
            } onEvent: { event in
                switch event {
                case .productsLocked(let products): events.withLock { $0.append("locked \(products)") }
                case .productUnlocked(let product, _): events.withLock { $0.append("unlocked \(product)") }
                default: break
                }
            }
            let lock = try await lock(fixture, stuck)
            for order in Int64(1)...5 {
                #expect(await engine.decrease(decrease(stuck, order, isRepeat: order > 3)) == .unavailable(.lockTimeout))
            }
            #expect(await engine.increase(increase(stuck, 1)) == .unavailable(.lockTimeout))
            #expect(try await eventually { events.withLock { $0 } == ["locked [7]"] })
            await lock.end()
            #expect(try await eventually { events.withLock { $0 } == ["locked [7]", "unlocked 7"] })
            let answer = await engine.decrease(decrease(stuck, 1, isRepeat: true))
            #expect(answer == .sold(remaining: 99, replayed: false))
            #expect(try await fixture.books(stuck).rows == 1)
            #expect(try await eventually { try await fixture.isExact(stuck, engine) })
        }
    }

    /// The callers of a locked product are bounded, and leave room for the others'.
    @Test func onlySoManyWaitForALockedRow() async throws {
        try await withFixture { fixture in
            let first = try await fixture.addProduct(1, stock: 100, gated: false)
            let second = try await fixture.addProduct(2, stock: 100, gated: false)
            let engine = try await fixture.startEngine {
                $0.ledger.postgres.lockTimeout = .seconds(100)
                $0.ledger.waitingForOneRow = 4
                $0.ledger.waitingForRows = 6
                $0.answerWithin = .seconds(110)
            }
            let lock = try await lock(fixture, first, second)
            let answers = Answers()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (product, orders) in [(first, Int64(1)...10), (second, Int64(11)...20)] {
                    for order in orders {
                        group.addTask {
                            let answer = await engine.decrease(decrease(product, order))
                            answers.told.withLock { $0.append(answer) }
                        }
                    }
                }
                // All but the six who may wait are answered while the lock is held.
                let isAnswered = try await eventually { answers.told.withLock { $0.count } == 14 }
                #expect(isAnswered)
                #expect(answers.told.withLock { $0.allSatisfy { $0 == .unavailable(.lockTimeout) } })
                #expect(engine.ledger.lockedProducts.snapshot().waiting == 6)
                await lock.end()
            }
            let sold = answers.told.withLock { $0.filter { if case .sold = $0 { true } else { false } } }
            #expect(sold.count == 6)
        }
    }

    /// Somebody's open transaction is writing a row under a buyer's key: that buyer waits in vain, those who came in the same group do not.
    @Test func aKeyThatIsBeingWrittenHoldsUpItsOwnRequestAlone() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 100, gated: false)
            let engine = try await fixture.startEngine { $0.ledger.postgres.lockTimeout = .seconds(20) }
            let lock = try await RowLock(
                url: fixture.postgres.url,
                """
                insert into stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
                values (9, 'DEC-5', 'OUT', 1, 'ORDER_DECREMENT', 5, 0, 0, 0)
                """
            )
            let answers = await withTaskGroup(of: (Int64, DecreaseAnswer).self) { group in
                for order in Int64(1)...32 { group.addTask { (order, await engine.decrease(decrease(product, order))) } }
                return await group.reduce(into: [Int64: DecreaseAnswer]()) { $0[$1.0] = $1.1 }
            }
            for (order, answer) in answers where order != 5 {
                if case .sold = answer {} else { Issue.record("order \(order) was told \(answer)") }
            }
            #expect(answers[5] == .unavailable(.lockTimeout))
            await lock.end()
            if case .sold = await engine.decrease(decrease(product, 5, isRepeat: true)) {} else { Issue.record("not sold") }
            #expect(try await fixture.books(product).stock == 68)
        }
    }
}
