import PostgresClient
import PrivateServers
import Testing

@Suite struct ListenerTests {
    @Test(.timeLimit(.minutes(10))) func listenerHearsAndListensAgainAfterALoss() async throws {
        let configuration = try SharedServer.configuration()
        let listener = try PostgresListener(configuration: configuration, channels: ["Stock \"1\"", "other"])
        let session = PostgresSession(configuration: configuration)
        var events = listener.events.makeAsyncIterator()
        #expect(await events.next() == .listening)
        _ = try session.query("SELECT pg_notify('Stock \"1\"', 'seven')")
        #expect(await events.next() == .notification(channel: "Stock \"1\"", payload: "seven"))
        _ = try session.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        #expect(await events.next() == .listening)
        _ = try session.query("SELECT pg_notify('other', '')")
        #expect(await events.next() == .notification(channel: "other", payload: ""))
        listener.shutdown()
        #expect(await events.next() == nil)
    }
}
