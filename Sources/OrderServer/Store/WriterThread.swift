import PostgresClient

/// Told of everything that keeps one of the orders' groups from its database, and with nil when it works again. `isNews`: it worked before, or was new.
typealias OrderWriterTrouble = @Sendable (_ writer: String, _ trouble: PostgresError?, _ isNews: Bool) -> Void

extension PostgresWorker {
    /// A thread for one of the orders' groups, which reports trouble under its own name.
    convenience init(orders name: String, _ configuration: PostgresConfiguration, _ onTrouble: OrderWriterTrouble?) throws(PostgresError) {
        // One job of the group's own and one question after its health wait at a time.
        try self.init(configuration: configuration, name: name, maximumQueued: 16) { trouble, isNews in onTrouble?(name, trouble, isNews) }
    }
}
