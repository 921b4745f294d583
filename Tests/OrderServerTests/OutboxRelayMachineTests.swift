import MessageBroker
import Testing

@testable import OrderServer

@Suite("Relay machine")
struct OutboxRelayMachineTests {
    private func row(_ id: Int64, product: Int64? = 1, attempts: Int64 = 0, error: String? = nil) -> RelayRow {
        RelayRow(id: id, topic: "stock.decrease", productID: product, orders: 1, payload: "{}", attempts: attempts, error: error)
    }

    private func publishing(_ rows: [RelayRow], _ settings: RelayMachine.Configuration = .init()) -> RelayMachine {
        var machine = RelayMachine(settings: settings)
        _ = machine.handle(.woke(isConnected: true))
        _ = machine.handle(.found(rows, isBusy: false))
        return machine
    }

    private static let events: [RelayMachine.Event] = [
        .woke(isConnected: true), .woke(isConnected: false), .found([], isBusy: false), .published([]), .notPublished(.notConnected),
        .marked, .databaseFailed, .stop,
    ]

    @Test("every state with every event: what belongs to nothing that is going on changes nothing")
    func everyStateEveryEvent() {
        let row = self.row(1)
        var disconnected = RelayMachine()
        _ = disconnected.handle(.woke(isConnected: false))
        var looking = RelayMachine()
        _ = looking.handle(.woke(isConnected: true))
        var marking = publishing([row])
        _ = marking.handle(.published([.confirmed]))
        var stopped = RelayMachine()
        _ = stopped.handle(.stop)
        let settings = RelayMachine.Configuration()
        let poll = RelayMachine.Action.sleep(settings.pollInterval)
        let trouble = RelayMachine.Action.sleep(settings.troubleInterval)
        let connection = RelayMachine.Action.sleep(settings.connectionInterval)
        let dead = RelayMachine.Action.mark([.failed(id: 1, after: .milliseconds(50), error: "UNKNOWN")])
        let table: [(RelayMachine, [RelayMachine.Action])] = [
            (RelayMachine(), [.look, connection, .ignore, .ignore, .ignore, .ignore, .ignore, .end]),
            (disconnected, [.look, connection, .ignore, .ignore, .ignore, .ignore, .ignore, .end]),
            (looking, [.ignore, .ignore, poll, .ignore, .ignore, .ignore, trouble, .ignore]),
            (publishing([row]), [.ignore, .ignore, .ignore, dead, .mark([.untouched(id: 1)]), .ignore, trouble, .ignore]),
            (marking, [.ignore, .ignore, .ignore, .ignore, .ignore, .pause(.zero), trouble, .ignore]),
            (stopped, [.ignore, .ignore, .ignore, .ignore, .ignore, .ignore, .ignore, .ignore]),
        ]
        for (machine, expected) in table {
            for (event, action) in zip(Self.events, expected) {
                var copy = machine
                #expect(copy.handle(event, random: { 0 }) == action, "\(machine.state) \(event)")
                if action == .ignore { #expect(copy == machine) }
            }
        }
    }

    @Test("each outcome has its mark; a missing outcome is not known")
    func marks() {
        var machine = publishing((1...5).map { row($0, product: $0) })
        let action = machine.handle(.published([.confirmed, .returned(code: 312, text: "NO_ROUTE"), .rejected, .unsent]), random: { 1 })
        let wait = Duration.milliseconds(100)
        #expect(
            action
                == .mark([
                    .sent(id: 1, orders: 1), .failed(id: 2, after: wait, error: "RETURNED 312 NO_ROUTE"),
                    .failed(id: 3, after: wait, error: "REJECTED"), .untouched(id: 4), .failed(id: 5, after: wait, error: "UNKNOWN"),
                ])
        )
        #expect(machine.handle(.marked) == .sleep(machine.settings.connectionInterval), "a lost connection is waited for")
    }

    @Test("the pause grows with the orders of the batch up to the longest; events always take three times that")
    func pauses() {
        func pause(after rows: [RelayRow]) -> RelayMachine.Action {
            var machine = publishing(rows)
            _ = machine.handle(.published(rows.map { _ in .confirmed }))
            return machine.handle(.marked)
        }
        var many = row(1)
        many.orders = 31
        #expect(pause(after: [many, row(2)]) == .pause(.zero))
        many.orders = 81
        #expect(pause(after: [many, row(2)]) == .pause(.milliseconds(3)))
        many.orders = 5_000
        #expect(pause(after: [many, row(2)]) == .pause(.milliseconds(8)))
        var event = row(3, product: nil)
        event.orders = 0
        #expect(pause(after: [event]) == .pause(.milliseconds(24)))
    }

    @Test("waits double up to the maximum, and the last attempt makes the row DEAD")
    func backoff() {
        var settings = RelayMachine.Configuration()
        settings.maximumAttempts = 4
        settings.backoff = RetryPolicy(maximumAttempts: 4, initialBackoff: .milliseconds(100), maximumBackoff: .milliseconds(300))
        let waits: [Duration] = [.milliseconds(100), .milliseconds(200), .milliseconds(300)]
        for (attempts, wait) in waits.enumerated() {
            var machine = publishing([row(1, attempts: Int64(attempts))], settings)
            #expect(machine.handle(.published([.rejected]), random: { 1 }) == .mark([.failed(id: 1, after: wait, error: "REJECTED")]))
        }
        var machine = publishing([row(1, attempts: 3)], settings)
        #expect(machine.handle(.published([.rejected])) == .mark([.dead(id: 1, orders: 1, error: "REJECTED")]))
    }

    @Test("behind a row that was refused nothing of its product goes; after an unknown outcome all go, in order")
    func heldBack() {
        var machine = RelayMachine()
        _ = machine.handle(.woke(isConnected: true))
        let refused = row(1, attempts: 1, error: "REJECTED")
        let unknown = row(3, product: 2, attempts: 1, error: "UNKNOWN")
        let rows = [refused, row(2), unknown, row(4, product: 2), row(5, product: nil)]
        #expect(machine.handle(.found(rows, isBusy: false)) == .publish([rows[0], rows[2], rows[3], rows[4]]))
    }

    @Test("a batch is bounded in rows and bytes, and never empty for a large row")
    func bounds() {
        var settings = RelayMachine.Configuration()
        settings.maximumRows = 3
        settings.maximumBytes = 10
        var machine = RelayMachine(settings: settings)
        _ = machine.handle(.woke(isConnected: true))
        #expect(machine.handle(.found((1...9).map { row($0) }, isBusy: false)) == .publish((1...3).map { row($0) }))
        var large = row(1)
        large.payload = String(repeating: "x", count: 20)
        machine = RelayMachine(settings: settings)
        _ = machine.handle(.woke(isConnected: true))
        #expect(machine.handle(.found([large, row(2)], isBusy: false)) == .publish([large]))
    }

    @Test("lanes in other hands are looked at again soon, whoever wakes meanwhile")
    func busy() {
        var machine = RelayMachine()
        _ = machine.handle(.woke(isConnected: true))
        #expect(machine.handle(.found([], isBusy: true)) == .pause(machine.settings.busyInterval))
    }
}
