/// The PostgreSQL channel on which servers tell each other's relays that there are rows to publish.
enum OutboxChannel {
    static let name = "stockgate_outbox"
}
