import StockGate
import Testing

@Suite struct SweepRestTests {
    private func rest(sawAll: Bool = true, overdue: Int64 = 0, oldest: Int64?, bound: Int64 = 30_000, longest: Int64 = 60_000) -> Int64 {
        SweepRest.milliseconds(sawAll: sawAll, overdue: overdue, oldest: oldest, bound: bound, longest: longest)
    }

    @Test func aProductWithoutReservationsRestsForTheBound() {
        #expect(rest(oldest: nil) == 30_000)
    }

    @Test func theRestEndsWhenTheOldestReservationCanBeOverdue() {
        #expect(rest(oldest: 0) == 30_000)
        #expect(rest(oldest: 29_999) == 1)
        #expect(rest(oldest: 30_000) == 0)
        // It is as old as the bound allows, and not overdue yet.
        #expect(rest(oldest: 30_001) == 0)
    }

    @Test func aProductThatWasNotSeenWholeOrHasAnOverdueReservationDoesNotRest() {
        #expect(rest(sawAll: false, oldest: nil) == 0)
        #expect(rest(overdue: 1, oldest: 40_000) == 0)
        #expect(rest(overdue: 1, oldest: nil) == 0)
    }

    @Test func noRestIsLongerThanTheLongest() {
        #expect(rest(oldest: nil, longest: 7) == 7)
        #expect(rest(oldest: 29_998, longest: 7) == 2)
    }

    @Test("ages that no clock gives are no longer rest than none", arguments: [Int64.min, -1, Int64.max])
    func oddAges(_ oldest: Int64) {
        #expect((0...30_000).contains(rest(oldest: oldest)))
    }

    /// Every reservation that was pending at the look, or is made after it, is looked at no later than the sweep would without a rest.
    @Test func nothingIsFoundLaterThanWithoutARest() {
        for oldest in stride(from: Int64(0), through: 40_000, by: 250) {
            let next = rest(overdue: oldest > 30_000 ? 1 : 0, oldest: oldest)
            let overdueAfter = max(0, 30_000 - oldest)
            #expect(next <= overdueAfter)
        }
    }
}
