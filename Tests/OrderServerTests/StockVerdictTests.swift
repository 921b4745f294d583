import StockContract
import StockGate
import StockGateProof
import Testing

@testable import OrderServer

/// The proof's model of an order judges what the stock step is told as the stock step does.
@Suite("The stock step and its model in the proof")
struct StockVerdictTests {
    private struct Calls: StockCalls {
        let answer: StockAnswer
        func send(_ change: StockChange, done: @escaping @Sendable (StockAnswer) -> Void) { done(answer) }
    }

    @Test(
        "every answer means the same to both, as the answer to a first attempt and to a repeat",
        arguments: [
            (DecreaseAnswer.sold(remaining: 4, replayed: false), StockAnswer.done(remainingStock: 4)),
            (.sold(remaining: 4, replayed: true), .replayed(remainingStock: 4)),
            (.insufficient(remaining: 1), .refused(code: "INSUFFICIENT_STOCK")),
            (.keyClosed, .refused(code: "KEY_CLOSED")),
            (.keyReused, .refused(code: "KEY_REUSED")),
            (.notOnSale, .refused(code: "INVALID_STATE")),
            (.productMissing, .refused(code: "PRODUCT_NOT_FOUND")),
            (.unavailable(.noAnswer), .noAnswer(cause: "NO_ANSWER", retryAfter: nil)),
        ],
        [true, false]
    )
    func verdict(_ answers: (DecreaseAnswer, StockAnswer), isFirst: Bool) async {
        let step = SagaStep.stock(Calls(answer: answers.1))
        let outcome = await withCheckedContinuation { ended in
            step.startExecuting(.example(), isFirst ? 1 : 2) { ended.resume(returning: $0) }
        }
        let verdict = OrderModel.verdict(on: answers.0, isFirst: isFirst)
        switch outcome {
        case .done: #expect(verdict == .confirm)
        case .refused: if case .fail = verdict {} else { Issue.record("refused, and to the model \(verdict)") }
        case .keyTaken(let code): #expect(verdict == .takeAnotherKey(isLedgersWord: code == "KEY_REUSED"))
        case .noAnswer: #expect(verdict == .askAgain)
        }
    }
}
