/// Names a command that was accepted by a connection, to cancel it. Numbers grow by one for each accepted command.
public struct RedisCommandID: Sendable, Hashable {
    let number: UInt64
}
