import Testing

@testable import CompareKit

@Suite("What was lost")
struct LossTests {
    private func books(told: Int64 = 400, unknown: Int64 = 0, truth: Int64 = 600, sellable: Int64 = 600) -> LossBooks {
        LossBooks(initial: 1_000, told: told, unknown: unknown, truth: truth, sellable: sellable)
    }

    @Test func booksThatAgree() {
        #expect(books().missing == 0)
        #expect(books().soldTwice == 0)
    }

    @Test func whatWasNotClearlyAnsweredMayHaveBeenSold() {
        // Twenty of the thirty-two were sold.
        let some = books(unknown: 32, truth: 580, sellable: 580)
        #expect(some.missing == 0)
        #expect(some.soldTwice == 0)
        // More are gone than all of them together explain.
        #expect(books(unknown: 32, truth: 560, sellable: 560).missing == 8)
    }

    @Test func aGateThatKnowsLessThanTheTruthHidesUnits() {
        #expect(books(sellable: 590).missing == 10)
        #expect(books(sellable: 0).missing == 600)
    }

    @Test func aTruthThatHasForgottenSellsAgain() {
        let all = books(truth: 1_000, sellable: 1_000)
        #expect(all.soldTwice == 400)
        #expect(all.missing == 0)
        #expect(books(truth: 603, sellable: 603).soldTwice == 3)
    }

    @Test func everySideThatCanBeKilledIs() {
        #expect(Set(LossRun.all).count == LossRun.all.count)
        #expect(LossRun.all.filter { $0.side == .stockGate }.map(\.casualty) == Casualty.allCases)
        #expect(LossRun.all.filter { $0.side == .gobatch }.map(\.casualty) == Casualty.allCases)
    }
}
