import Testing

@testable import MessageBroker

/// A watch with a patience of two seconds, by reference: an expectation takes no value that it would change.
private final class Watch {
    private var watch = RejectionWatch(patience: .seconds(2))
    var isEmpty: Bool { watch.isEmpty }
    var refused: [String: ContinuousClock.Instant] { watch.refused }

    func refused(_ route: RejectionWatch.Route, at now: ContinuousClock.Instant) -> RejectionWatch.Finding {
        watch.refused(route, at: now)
    }

    func confirmed(_ route: RejectionWatch.Route) -> Bool { watch.confirmed(route) }
}

@Suite("Refused messages")
struct RejectionWatchTests {
    private let start = ContinuousClock.now
    private let sale = RejectionWatch.Route(exchange: "stock.commands", routingKey: "stock.decrease")
    private let aside = RejectionWatch.Route(exchange: "stock.commands", routingKey: "aside")

    @Test func aRefusalThatLastsReplacesTheConnection() {
        let watch = Watch()
        #expect(watch.isEmpty)
        #expect(watch.refused(sale, at: start) == .none)
        #expect(watch.refused(sale, at: start + .milliseconds(1_999)) == .none)
        #expect(watch.refused.isEmpty && !watch.isEmpty)
        #expect(watch.refused(sale, at: start + .seconds(2)) == .replace(isNews: true))
        #expect(watch.refused == ["stock.commands/stock.decrease": start + .seconds(2)])
        // The next one gets its time.
        #expect(watch.refused(sale, at: start + .milliseconds(3_999)) == .none)
        #expect(watch.refused(sale, at: start + .seconds(4)) == .replace(isNews: false))
        #expect(watch.refused == ["stock.commands/stock.decrease": start + .seconds(4)])
    }

    @Test func aConfirmEndsIt() {
        let watch = Watch()
        #expect(watch.refused(sale, at: start) == .none)
        #expect(!watch.confirmed(sale), "nobody was told")
        #expect(watch.isEmpty)
        #expect(watch.refused(sale, at: start + .seconds(10)) == .none)
        #expect(watch.refused(sale, at: start + .seconds(12)) == .replace(isNews: true))
        #expect(watch.confirmed(sale))
        #expect(!watch.confirmed(sale))
        #expect(watch.refused.isEmpty)
        #expect(watch.refused(sale, at: start + .seconds(13)) == .none)
        #expect(watch.refused(sale, at: start + .seconds(15)) == .replace(isNews: true))
    }

    @Test func eachRouteHasItsOwnTimeAndTheyShareAConnection() {
        let watch = Watch()
        #expect(watch.refused(sale, at: start) == .none)
        #expect(watch.refused(aside, at: start + .seconds(1)) == .none)
        #expect(!watch.confirmed(aside))
        #expect(watch.refused(aside, at: start + .milliseconds(1_500)) == .none)
        #expect(watch.refused(sale, at: start + .seconds(2)) == .replace(isNews: true), "what is confirmed elsewhere says nothing of it")
        #expect(watch.refused(aside, at: start + .milliseconds(3_600)) == .none, "the connection is new")
        #expect(watch.refused.keys.sorted() == ["stock.commands/stock.decrease"])
        #expect(watch.refused(aside, at: start + .seconds(4)) == .replace(isNews: true))
        #expect(watch.refused.keys.sorted() == ["stock.commands/aside", "stock.commands/stock.decrease"])
    }

    @Test func itWatchesABoundedNumberOfRoutes() {
        let watch = Watch()
        for number in 0...RejectionWatch.maximumRoutes {
            #expect(watch.refused(RejectionWatch.Route(exchange: "e", routingKey: "\(number)"), at: start) == .none)
        }
        let last = RejectionWatch.Route(exchange: "e", routingKey: "\(RejectionWatch.maximumRoutes)")
        #expect(watch.refused(last, at: start + .seconds(9)) == .none)
        #expect(!watch.confirmed(RejectionWatch.Route(exchange: "e", routingKey: "0")))
        #expect(watch.refused(last, at: start + .seconds(9)) == .none)
        #expect(watch.refused(last, at: start + .seconds(11)) == .replace(isNews: true))
    }
}
