import PostgresClient

/// Called with every trouble that keeps one of the orders' groups from its database, and with nil when the group works again. `isNews`: the group worked
/// before, or is new.
typealias OrderWriterTrouble = @Sendable (_ writer: String, _ trouble: PostgresError?, _ isNews: Bool) -> Void

extension PostgresWorker {
    /// A thread for one of the orders' groups, which reports trouble under its own name.
    convenience init(orders name: String, _ configuration: PostgresConfiguration, _ onTrouble: OrderWriterTrouble?) throws(PostgresError) {
        // The queue holds one job of the group and one question about its health at a time.
        try self.init(configuration: configuration, name: name, maximumQueued: 16) { trouble, isNews in onTrouble?(name, trouble, isNews) }
    }
}

/// One of the orders' groups: what callers ask for while a statement is out goes together in the next.
protocol OrderGroup: Sendable {
    associatedtype Item: Sendable
    var group: GroupCommit<Item> { get }
}

extension OrderGroup {
    /// Items that wait.
    var queued: Int { group.waiting }
    /// Opens the connection, which takes its place at the server.
    func connect() async { await group.connect() }
    /// What keeps the group from its database; nil if nothing does.
    func troubleWriting() async -> PostgresError? { await group.troubleWriting() }
    func shutdown() async { await group.shutdown() }
}
