import Eventually
import NIOCore
import NIOPosix
import PrivateServers
import RedisClient
import StockGate
import Synchronization
import Testing

/// Reserves that come while a call to Redis is out.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct GatheredReservesTests {
    private let loop = MultiThreadedEventLoopGroup.singleton.next()

    private final class Answers: Sendable {
        let all = Mutex<[DecreaseAnswer]>([])
        var count: Int { all.withLock { $0.count } }
    }

    /// Begins decreases on one loop, each in a turn of its own.
    private func begin(_ engine: StockEngine, _ product: ProductID, _ orders: Range<Int64>, _ answers: Answers) async throws {
        for order in orders {
            try await loop.submit {
                // Not all want the same.
                let request = DecreaseRequest(
                    product: product,
                    key: "DEC-\(order)",
                    orderID: order,
                    quantity: Quantity(order % 3 + 1),
                    isRepeat: false
                )
                engine.decrease(request, on: loop) { answer in answers.all.withLock { $0.append(answer) } }
            }.get()
        }
    }

    private func withEngine(commandTimeout: Duration, _ body: (EngineFixture, StockEngine, ProductID) async throws -> Void) async throws {
        let fixture = try await EngineFixture()
        do {
            let product = try await fixture.addProduct(1, stock: 1000)
            let engine = try await fixture.startEngine {
                $0.redis.commandTimeout = commandTimeout
                $0.redis.silenceLimit = commandTimeout * 2
                $0.answerWithin = .seconds(60)
            }
            // Every loop's connection is ready then.
            let answers = Answers()
            try await begin(engine, product, 1..<2, answers)
            #expect(try await eventually { answers.count == 1 })
            try await body(fixture, engine, product)
        } catch {
            await fixture.stop()
            throw error
        }
        await fixture.stop()
    }

    @Test func whatComesWhileACallIsOutLeavesTogetherBehindIt() async throws {
        try await withEngine(commandTimeout: .seconds(30)) { fixture, engine, product in
            let answers = Answers()
            let calls = engine.metrics.reserveCalls.count
            fixture.redis.pause()
            try await begin(engine, product, 10..<11, answers)
            #expect(try await eventually { engine.metrics.reserveCalls.count == calls + 1 })
            try await begin(engine, product, 11..<41, answers)
            // What waits was not sent: Redis would see it behind the first call at the earliest.
            #expect(engine.metrics.reserveCalls.count == calls + 1)
            fixture.redis.resume()
            #expect(try await eventually { answers.count == 31 })
            #expect(answers.all.withLock { $0.allSatisfy { if case .sold = $0 { true } else { false } } })
            #expect(engine.metrics.reserveCalls.count == calls + 2)
            #expect(engine.metrics.direct.count == 0)
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let sold = (10..<41).reduce(0) { $0 + $1 % 3 + 1 } + 2
            #expect(try await fixture.books(product).stock == Int64(1000 - sold))
        }
    }

    @Test func nobodyWaitsForTwoCallsThatHang() async throws {
        // Long enough for all to come behind the first call before it ends, also on a busy machine.
        try await withEngine(commandTimeout: .seconds(4)) { fixture, engine, product in
            let answers = Answers()
            let (calls, reserves) = (engine.metrics.reserveCalls.count, engine.metrics.reserves.count)
            fixture.redis.pause()
            try await begin(engine, product, 10..<11, answers)
            #expect(try await eventually { engine.metrics.reserveCalls.count == calls + 1 })
            try await begin(engine, product, 11..<41, answers)
            // The first call's end is the end of all: those behind it were never sent, and are sold by the ledger alone.
            #expect(try await eventually { answers.count == 31 })
            #expect(answers.all.withLock { $0.allSatisfy { if case .sold = $0 { true } else { false } } })
            #expect(engine.metrics.reserves.count == reserves + 1)
            #expect(engine.metrics.direct.count == 31)
            fixture.redis.resume()
            #expect(try await eventually { try await fixture.isExact(product, engine) })
        }
    }

    /// A settle that waits for company leaves before the connections close: another server would take its reservation for one that was left behind.
    @Test func whatWaitsIsSentBeforeTheConnectionsClose() async throws {
        let fixture = try await EngineFixture()
        do {
            let product = try await fixture.addProduct(1, stock: 1000)
            let engine = try await fixture.startEngine { $0.sweepInterval = .seconds(3600) }
            for order in Int64(1)..<30 {
                let request = DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: 1, isRepeat: false)
                #expect(await engine.decrease(request) == .sold(remaining: 1000 - order, replayed: false))
            }
            await engine.shutdown()
            // Redis reads what was sent when it comes to it. Nobody else settles: there is no sweep.
            #expect(try await eventually { try fixture.redis.call(["HLEN", "sg:{1}:pending"]) == ":0\r\n" })
        } catch {
            await fixture.stop()
            throw error
        }
        await fixture.stop()
    }
}
