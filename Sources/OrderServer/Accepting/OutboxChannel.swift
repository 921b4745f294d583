/// The channel on which servers tell one another's relays that there is something.
enum OutboxChannel {
    static let name = "stockgate_outbox"
}
