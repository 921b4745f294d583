import Testing

@testable import FlashSaleKit

extension SaleTests {
    // What buyers do beside ordering once.

    @Test(arguments: [16, 1]) func ordersThatAreSentTwiceAreAnsweredAlike(concurrency: Int) async throws {
        // With one connection the second comes behind the first, with more beside it.
        var settings = settings(units: 100, orders: 300, concurrency: concurrency)
        settings.habits.duplicates = 0.5
        let result = try await hold(settings, at: Shop())
        #expect(result.audit.passes, "\(result.audit.findings)")
        #expect(result.load.duplicates > 90 && result.load.duplicates < 210 && result.load.conflicts == 0)
        #expect(
            result.load.orders == 300 && result.load.confirmed == 100 && result.load.unitsConfirmed == 100,
            "the second counts for nothing"
        )
        let split = try await hold(settings, at: Shop(faults: Shop.Faults(splits: true)))
        #expect(!split.audit.passes && split.load.conflicts > 5)
        #expect(split.audit.findings.contains { $0.hasPrefix("duplicates: \(split.load.conflicts) keys were answered in two ways") })
    }

    @Test func cancellationsGiveUnitsBackAndAreLookedUp() async throws {
        var settings = settings(units: 100, orders: 600)
        settings.habits.cancellations = 0.3
        let result = try await hold(settings, at: Shop())
        #expect(result.audit.passes, "\(result.audit.findings)")
        #expect(result.load.cancelledOrders.count > 10 && result.load.cancellationsFailed == 0)
        #expect(result.load.unitsConfirmed - result.load.unitsCancelled == 100, "what was given back was sold again")
        let forgotten = try await hold(settings, at: Shop(faults: Shop.Faults(forgetsCancellations: true)))
        #expect(!forgotten.audit.passes)
        #expect(
            forgotten.audit.offenders.allSatisfy { $0.told == "CANCELLED" }
                && forgotten.audit.offenders.count == forgotten.load.cancelledOrders.count
        )
    }

    @Test func buyersLookBeforeTheyOrder() async throws {
        var settings = settings(units: 20, orders: 50)
        settings.habits.views = 3
        settings.habits.duplicates = 0.5
        let result = try await hold(settings, at: Shop())
        #expect(result.audit.passes && result.load.views == 150 && result.load.viewErrors == 0 && result.load.viewLatencies.count == 150)
        #expect(result.load.duplicates > 5 && result.load.conflicts == 0)
        #expect(SaleReport(result).table.contains { $0.hasPrefix("150 looks at the product") })
    }

    @Test func severalGatewaysShareTheBuyers() async throws {
        let (shop, other) = (Shop(), Shop(faults: Shop.Faults(refusesAll: true)))
        var settings = settings(units: 1000, orders: 200, concurrency: 8)
        settings.retries = 0
        settings.moreGateways = [try await other.open()]
        let result = try await hold(settings, at: shop)
        // Half of the connections go to the one that refuses everything.
        #expect(result.load.confirmed > 0 && result.load.errors > 0 && result.load.orders == 200)
        await other.close()
    }
}
