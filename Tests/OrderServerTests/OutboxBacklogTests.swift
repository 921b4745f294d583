import ServerMetrics
import Testing

@testable import OrderServer

@Suite("What waits in the outbox, counted while it changes")
struct OutboxBacklogTests {
    /// What happens to an order's row, and to a count of the rows, each in its own order.
    private static let row = ["reserve", "commit", "mark", "release"]
    /// The same of a row of an event, whose writer is told what it wrote, and of one that is not written.
    private static let event = ["reserve", "commit", "wrote", "mark", "release"]
    private static let noEvent = ["reserve", "wroteNone"]
    private static let count = ["begin", "snapshot", "end"]

    /// Every way to mix three rows of events.
    private static func mixes(_ one: ArraySlice<String>, _ two: ArraySlice<String>, _ three: ArraySlice<String>) -> [[(Int, String)]] {
        var mixes: [[(Int, String)]] = []
        if let next = one.first { mixes += self.mixes(one.dropFirst(), two, three).map { [(0, next)] + $0 } }
        if let next = two.first { mixes += self.mixes(one, two.dropFirst(), three).map { [(1, next)] + $0 } }
        if let next = three.first { mixes += self.mixes(one, two, three.dropFirst()).map { [(2, next)] + $0 } }
        return mixes.isEmpty ? [[]] : mixes
    }

    /// One order goes all the way, the other as far as `length` events; a count runs anywhere between.
    @Test(arguments: 1...4)
    func aCountAtAnyMoment(length: Int) {
        let mixes = Self.mixes(Self.row[...], Self.row.prefix(length), Self.count[...])
        #expect(mixes.count > 50)
        for mix in mixes {
            let backlog = OutboxBacklog(maximumOrders: 5, maximumEvents: 5)
            var (reserved, rows, found) = (0, 0, 0)
            for (_, event) in mix {
                switch event {
                case "reserve":
                    #expect(backlog.reserve())
                    #expect(backlog.reserve(events: 1))
                    reserved += 1
                case "commit": rows += 1
                case "mark": rows -= 1
                case "release":
                    backlog.release(orders: 1)
                    backlog.release(events: 1)
                    reserved -= 1
                case "begin": backlog.beginCount()
                case "snapshot": found = rows
                default: backlog.endCount(orders: found, events: found, oldestAge: .zero, rows: [:])
                }
                // Whoever is refused for what does not wait is refused for nothing.
                #expect(backlog.orders <= reserved && backlog.events <= reserved, "\(mix.map(\.1))")
                #expect(backlog.orders >= 0 && backlog.events >= 0)
            }
            // A count with nothing under way is right.
            backlog.beginCount()
            backlog.endCount(orders: rows, events: rows, oldestAge: .zero, rows: [:])
            #expect(backlog.orders == rows && backlog.events == rows, "\(mix.map(\.1))")
        }
    }

    /// One event goes all the way, another as far as `length`, or is not written at all; a count runs anywhere between.
    @Test(arguments: 1...5, [true, false])
    func aCountWhileEventsAreWritten(length: Int, isWritten: Bool) {
        for mix in Self.mixes(Self.event[...], (isWritten ? Self.event : Self.noEvent).prefix(length), Self.count[...]) {
            let backlog = OutboxBacklog(maximumOrders: 5, maximumEvents: 5)
            let outbox = OutboxWriting(
                backlog: backlog,
                droppedEvents: Counter(),
                wakeCommands: {},
                wakeEvents: {},
                mustNotify: { false }
            )
            var (reserved, rows, found) = (0, 0, 0)
            for (_, event) in mix {
                switch event {
                case "reserve": if backlog.reserve(events: 1) { reserved += 1 }
                case "commit": rows += 1
                case "wrote": outbox.wrote(commands: 0, events: 1, room: 1)
                case "wroteNone":
                    outbox.wroteNone(room: 1)
                    reserved -= 1
                case "mark": rows -= 1
                case "release":
                    backlog.release(events: 1)
                    reserved -= 1
                case "begin": backlog.beginCount()
                case "snapshot": found = rows
                default: backlog.endCount(orders: 0, events: found, oldestAge: .zero, rows: [:])
                }
                guard backlog.events <= reserved else {
                    Issue.record("\(backlog.events) events for \(reserved): \(mix.map(\.1))")
                    return
                }
            }
            backlog.beginCount()
            backlog.endCount(orders: 0, events: rows, oldestAge: .zero, rows: [:])
            guard backlog.events == rows else {
                Issue.record("\(backlog.events) events for \(rows) rows: \(mix.map(\.1))")
                return
            }
        }
    }

    @Test func beyondTheBoundNoRoomIsMade() {
        let backlog = OutboxBacklog(maximumOrders: 5, maximumEvents: 2)
        #expect(backlog.reserve(events: 1))
        #expect(backlog.reserve(events: 2))
        #expect(!backlog.reserve(events: 1))
        backlog.release(events: 1)
        #expect(!backlog.reserve(events: 1))
        backlog.release(events: 1)
        #expect(backlog.reserve(events: 1))
        #expect(backlog.events == 2)
    }

    @Test func ordersWithoutAResultAreShownForAWhile() {
        let backlog = OutboxBacklog(maximumOrders: 5, maximumEvents: 5)
        #expect(backlog.unanswered == 0)
        backlog.found(unanswered: 3)
        backlog.found(unanswered: 4)
        #expect(backlog.unanswered == 7)
        let forgetful = OutboxBacklog(maximumOrders: 5, maximumEvents: 5, unansweredTime: .zero)
        forgetful.found(unanswered: 3)
        #expect(forgetful.unanswered == 0)
    }

    @Test func aCountTellsWhatOthersWroteAndSent() {
        let backlog = OutboxBacklog(maximumOrders: 5, maximumEvents: 5)
        backlog.beginCount()
        #expect(backlog.reserve())
        backlog.endCount(orders: 4, events: 2, oldestAge: .zero, rows: [:])
        #expect(backlog.orders == 4 && backlog.events == 2)
        backlog.beginCount()
        backlog.endCount(orders: 1, events: 0, oldestAge: .zero, rows: [:])
        #expect(backlog.orders == 1 && backlog.events == 0)
    }
}
