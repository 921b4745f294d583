import ServerKit
import StockContract
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

extension Order {
    /// A PENDING order of 3 units.
    static func example(id: Int64 = 7, run: Int64 = 1) -> Order {
        Order(
            id: id,
            productID: 1,
            quantity: 3,
            status: .pending,
            run: run,
            createdAt: .now,
            updatedAt: .now
        )
    }
}

/// A step that does what it is told and notes what it was asked.
final class ScriptedStep: Sendable {
    private let state: Mutex<(outcomes: [StepOutcome], calls: [String])>
    let name: String

    init(_ name: String, _ outcomes: [StepOutcome] = []) {
        self.name = name
        self.state = Mutex((outcomes, []))
    }

    var calls: [String] { state.withLock { $0.calls } }

    var step: SagaStep {
        SagaStep(name: self.name) { order, attempt in
            self.state.withLock { state in
                state.calls.append("do \(order.decreaseKey) \(attempt)")
                return state.outcomes.isEmpty ? .done : state.outcomes.removeFirst()
            }
        } compensate: { order, attempt in
            self.state.withLock { state in
                state.calls.append("undo \(order.increaseKey) \(attempt)")
                return state.outcomes.isEmpty ? .done : state.outcomes.removeFirst()
            }
        }
    }
}

@Suite("The saga's orchestrator")
struct SagaOrchestratorTests {
    private let policy = RetryPolicy(maximumAttempts: 3, initialBackoff: .milliseconds(2), maximumBackoff: .milliseconds(4))

    @Test("a payment step is one more value: it is done after the stock, and its refusal gives the stock back")
    func extraStep() async {
        let stock = ScriptedStep("STOCK")
        let payment = ScriptedStep("PAYMENT", [.refused(reason: "CARD_DECLINED")])
        let shipping = ScriptedStep("SHIPPING")
        let saga = SagaOrchestrator(steps: [stock.step, payment.step, shipping.step], policy: self.policy)
        let (result, records) = await saga.run(.example(), deadline: .now + .seconds(60))
        #expect(result == .failed(reason: "CARD_DECLINED"))
        #expect(stock.calls == ["do DEC-7 1", "undo INC-7 1"])
        #expect(payment.calls == ["do DEC-7 1"])
        #expect(shipping.calls.isEmpty)
        #expect(
            records.map { "\($0.step) \($0.action.rawValue) \($0.outcome)" } == [
                "STOCK EXECUTE DONE", "PAYMENT EXECUTE CARD_DECLINED", "STOCK COMPENSATE DONE",
            ]
        )
    }

    @Test("no answer is repeated under the same key with a rising attempt; attempts make one record")
    func retries() async {
        let stock = ScriptedStep(
            "STOCK",
            [
                .noAnswer(cause: "TIMED_OUT", retryAfter: nil), .noAnswer(cause: "CONNECTION_LOST", retryAfter: nil), .done,
            ]
        )
        let saga = SagaOrchestrator(steps: [stock.step], policy: self.policy)
        let (result, records) = await saga.run(.example(id: 9, run: 2), deadline: .now + .seconds(60))
        #expect(result == .confirmed)
        #expect(stock.calls == ["do DEC-9.2 1", "do DEC-9.2 2", "do DEC-9.2 3"])
        #expect(records.count == 1)
        #expect(records.first?.attempts == 3)
        #expect(records.first?.run == 2)
    }

    @Test("what never answers is undecided, and nothing is compensated")
    func undecided() async {
        let stock = ScriptedStep("STOCK", Array(repeating: .noAnswer(cause: "TIMED_OUT", retryAfter: nil), count: 9))
        let saga = SagaOrchestrator(steps: [stock.step], policy: self.policy)
        let (result, _) = await saga.run(.example(), deadline: .now + .seconds(60))
        #expect(result == .undecided(cause: "TIMED_OUT"))
        #expect(stock.calls == ["do DEC-7 1", "do DEC-7 2", "do DEC-7 3"])
    }

    @Test("undoing asks every step, the last first")
    func undo() async {
        let stock = ScriptedStep("STOCK")
        let payment = ScriptedStep("PAYMENT")
        let saga = SagaOrchestrator(steps: [stock.step, payment.step], policy: self.policy)
        let (result, records) = await saga.run(.example(), purpose: .undo(reason: "CANCELLED"), deadline: .now + .seconds(60))
        #expect(result == .failed(reason: "CANCELLED"))
        #expect(records.map(\.step) == ["PAYMENT", "STOCK"])
    }
}

@Suite("The stock step")
struct StockStepTests {
    private struct Calls: StockCalls {
        let answer: StockAnswer
        func send(_ change: StockChange, done: @escaping @Sendable (StockAnswer) -> Void) { done(answer) }
    }

    @Test("a closed key of a repeat is a lost refusal for want of stock; of a first attempt it is what it says")
    func closedKey() async {
        let step = SagaStep.stock(Calls(answer: .refused(code: "KEY_CLOSED")))
        let executed = { attempt in
            await withCheckedContinuation { ended in step.startExecuting(.example(), attempt) { ended.resume(returning: $0) } }
        }
        #expect(await executed(2) == .refused(reason: "INSUFFICIENT_STOCK"))
        #expect(await executed(1) == .keyTaken(code: "KEY_CLOSED"), "a key that was never sent is closed by another order")
        #expect(await withCheckedContinuation { ended in step.startCompensating(.example(), 1) { ended.resume(returning: $0) } } == .done)
    }

    @Test(
        "only the contract's own refusals are a no",
        arguments: [
            (400, "INSUFFICIENT_STOCK" as String?, StockAnswer.refused(code: "INSUFFICIENT_STOCK")),
            (404, "PRODUCT_NOT_FOUND", .refused(code: "PRODUCT_NOT_FOUND")),
            (409, "KEY_CLOSED", .refused(code: "KEY_CLOSED")),
            (422, "KEY_REUSED", .refused(code: "KEY_REUSED")),
            (404, nil, .noAnswer(cause: "HTTP_404", retryAfter: nil)),
            (404, "NOT_FOUND", .noAnswer(cause: "NOT_FOUND", retryAfter: nil)),
            (401, "UNAUTHORIZED", .noAnswer(cause: "UNAUTHORIZED", retryAfter: nil)),
            (409, "REQUEST_IN_PROGRESS", .noAnswer(cause: "REQUEST_IN_PROGRESS", retryAfter: nil)),
            (503, "OVERLOADED", .noAnswer(cause: "OVERLOADED", retryAfter: nil)),
            (500, nil, .noAnswer(cause: "HTTP_500", retryAfter: nil)),
            (302, nil, .noAnswer(cause: "HTTP_302", retryAfter: nil)),
            (200, nil, .noAnswer(cause: "MALFORMED_ANSWER", retryAfter: nil)),
        ]
    )
    func judges(status: Int, code: String?, expected: StockAnswer) {
        #expect(StockAnswer(status: status, code: code, remainingStock: nil, retryAfter: nil) == expected)
    }

    @Test("where a server is")
    func endpoints() {
        #expect(HTTPEndpoint("http://127.0.0.1:8081")?.port == 8081)
        #expect(HTTPEndpoint("http://[::1]:81/base/")?.path == "/base")
        #expect(HTTPEndpoint("http://[::1]:81/base/")?.host == "::1")
        #expect(HTTPEndpoint("http://name")?.port == 80)
        for bad in [
            "https://name?sslmode=odd", "https://", "http://", "http://:80", "http://a:b", "http://a:0", "http://a:65536", "http://u:p@a",
            "http://a b", "a:80",
        ] {
            #expect(HTTPEndpoint(bad) == nil, "\(bad)")
        }
    }
}

@Suite("The memory of sold-out products", .timeLimit(.minutes(10)))
struct SoldOutProductsTests {
    @Test("turns away what is no smaller, until stock is seen")
    func remembers() async {
        let memory = SoldOutProducts(time: .seconds(60))
        #expect(await memory.ask(product: 1, quantity: 5) == .proceed)
        memory.sawRefusal(product: 1, quantity: 5)
        #expect(await memory.ask(product: 1, quantity: 5) == .soldOut)
        #expect(await memory.ask(product: 1, quantity: 9) == .soldOut)
        #expect(await memory.ask(product: 1, quantity: 4) == .proceed)
        #expect(await memory.ask(product: 2, quantity: 5) == .proceed)
        memory.sawStock(product: 1)
        #expect(await memory.ask(product: 1, quantity: 5) == .proceed)
    }

    @Test("afterwards one asks, the others wait for what it learns")
    func oneProbe() async {
        let memory = SoldOutProducts(time: .nanoseconds(1))
        memory.sawRefusal(product: 1, quantity: 1)
        #expect(await memory.ask(product: 1, quantity: 1) == .probe(1))
        let told = Mutex<[Int64: SoldOutProducts.Verdict]>([:])
        for quantity: Int64 in [1, 9] {
            memory.ask(product: 1, quantity: quantity) { verdict in told.withLock { $0[quantity] = verdict } }
        }
        #expect(told.withLock { $0.isEmpty }, "both wait")
        memory.sawRefusal(product: 1, quantity: 3)
        #expect(told.withLock { $0 } == [1: .proceed, 9: .soldOut])
    }

    @Test("a probe that ends without an answer holds nobody up, and an earlier one's end does not end a later one")
    func endedProbe() async {
        let memory = SoldOutProducts(time: .nanoseconds(1))
        memory.sawRefusal(product: 1, quantity: 1)
        #expect(await memory.ask(product: 1, quantity: 1) == .probe(1))
        memory.sawRefusal(product: 1, quantity: 1)
        #expect(await memory.ask(product: 1, quantity: 1) == .probe(2))
        memory.endProbe(product: 1, probe: 1)
        let told = Mutex<SoldOutProducts.Verdict?>(nil)
        memory.ask(product: 1, quantity: 1) { verdict in told.withLock { $0 = verdict } }
        #expect(told.withLock { $0 } == nil, "it waits")
        memory.endProbe(product: 1, probe: 2)
        #expect(told.withLock { $0 } == .proceed)
    }

    @Test("in its second half one request looks again while the others are still turned away")
    func looksAgain() async {
        let memory = SoldOutProducts(time: .seconds(8))
        let refused = ContinuousClock.now
        memory.sawRefusal(product: 1, quantity: 1)
        var verdict = await memory.ask(product: 1, quantity: 1)
        // A machine that stood still for half of the time, or all of it, finds what comes then.
        #expect(verdict == .soldOut || ContinuousClock.now >= refused + .seconds(4))
        while verdict == .soldOut {
            try? await Task.sleep(for: .milliseconds(10))
            verdict = await memory.ask(product: 1, quantity: 1)
        }
        #expect(verdict == .probe(1))
        #expect(ContinuousClock.now >= refused + .seconds(4))
        // Behind the memory's end the others would wait for the first one.
        guard ContinuousClock.now < refused + .seconds(7) else { return }
        #expect(await memory.ask(product: 1, quantity: 1) == .soldOut)
    }

    @Test("for a while after an order was refused a probe only looks; what a look sees renews the memory, but not that time")
    func looks() async {
        // So long that a machine that stands still for a moment is within it.
        let memory = SoldOutProducts(time: .nanoseconds(1), lookTime: .seconds(5))
        let refused = ContinuousClock.now
        memory.sawRefusal(product: 1, quantity: 3)
        #expect(await memory.ask(product: 1, quantity: 3) == .look(1))
        let told = Mutex<[Int64: SoldOutProducts.Verdict]>([:])
        for quantity: Int64 in [2, 3] {
            memory.ask(product: 1, quantity: quantity) { verdict in told.withLock { $0[quantity] = verdict } }
        }
        memory.sawLeft(product: 1, units: 2)
        #expect(told.withLock { $0 } == [2: .proceed, 3: .soldOut])
        memory.endProbe(product: 1, probe: 1)
        // As many units as were refused: the memory is not renewed, and the end of the look forgets it.
        var verdict = await memory.ask(product: 1, quantity: 3)
        guard case .look(let look) = verdict else { return #expect(ContinuousClock.now >= refused + .seconds(5)) }
        memory.sawLeft(product: 1, units: 3)
        memory.endProbe(product: 1, probe: look)
        #expect(await memory.ask(product: 1, quantity: 3) == .proceed)

        let again = ContinuousClock.now
        memory.sawRefusal(product: 1, quantity: 3)
        repeat {
            try? await Task.sleep(for: .milliseconds(5))
            verdict = await memory.ask(product: 1, quantity: 3)
            if case .look(let look) = verdict {
                memory.sawLeft(product: 1, units: 0)
                memory.endProbe(product: 1, probe: look)
            }
        } while !verdict.isProbe && ContinuousClock.now < again + .seconds(60)
        #expect(verdict.isProbe)
        #expect(ContinuousClock.now >= again + .seconds(5))
    }

    @Test("no more products than its capacity, and nothing with a time of zero")
    func bounds() async {
        let memory = SoldOutProducts(time: .seconds(60), capacity: 2)
        for product in 1...3 { memory.sawRefusal(product: Int64(product), quantity: 1) }
        #expect(await memory.ask(product: 2, quantity: 1) == .soldOut)
        #expect(await memory.ask(product: 3, quantity: 1) == .proceed)
        let none = SoldOutProducts(time: .zero)
        none.sawRefusal(product: 1, quantity: 1)
        #expect(await none.ask(product: 1, quantity: 1) == .proceed)
    }
}

extension SoldOutProducts.Verdict {
    fileprivate var isProbe: Bool { if case .probe = self { true } else { false } }
}
