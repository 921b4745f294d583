// Invariant: a sequence is only ever raised. While that happens nobody can take a block of it.
//
// A sequence can be behind its table after a restore that left it out, or after an operator's change. Then every new order would be refused, because its id
// belongs to another order.

import Logging
import PostgresClient

/// A sequence of ids that are given out in blocks, and the table whose keys they are.
enum IDSequence: String, Sendable, CaseIterable {
    case orders = "order_ids"
    case messages = "outbox_ids"

    struct Raise: Sendable, Equatable {
        /// The first id of the block that would have come next.
        var from: Int64
        /// The first id that comes next now.
        var to: Int64
    }

    private var table: String {
        switch self {
        case .orders: "orders"
        case .messages: "outbox"
        }
    }

    /// The constraint that a second row with one id violates.
    private var constraint: String { table + "_pkey" }

    /// An empty block of this sequence.
    var block: IDBlock { IDBlock(self) }

    /// The statement that takes a block.
    var takeSQL: String { "select nextval('\(rawValue)')" }

    /// SQL that reads the first id of the next block, and the first free id of the table.
    private var stateSQL: String {
        """
        select s.last_value + case when s.is_called then \(IDBlock.size) else 0 end, coalesce((select max(t.id) from \(table) t), 0) + 1
        from \(rawValue) s
        """
    }

    /// Whether a statement failed because an id of this sequence has a row already.
    func isCause(of error: PostgresError) -> Bool { error.sqlState == "23505" && error.constraint == constraint }

    /// Raises the sequence above every id in the table, if it is behind.
    /// - Returns: nil if it was not behind
    func raise(_ session: PostgresSession) throws(PostgresError) -> Raise? {
        let state = try session.query(stateSQL).one()
        guard try state.decode(0, as: Int64.self) < (try state.decode(1, as: Int64.self)) else { return nil }
        do {
            return try session.transaction { transaction in
                // This statement changes nothing, but its lock keeps everybody from taking a block until the commit.
                try transaction.execute(script: "alter sequence \(rawValue) increment by \(IDBlock.size)")
                let state = try transaction.query(stateSQL).one()
                let (next, free) = (try state.decode(0, as: Int64.self), try state.decode(1, as: Int64.self))
                guard next < free else { return nil }
                _ = try transaction.query("select setval('\(rawValue)', $1, false)", [.int(free)])
                return Raise(from: next, to: free)
            }
        } catch let error as PostgresError {
            throw error
        } catch {
            throw PostgresError(code: .misuse, message: "\(error)")
        }
    }

    /// Raises every sequence that is behind its table, with a warning for each. An error is only logged, because an order whose id is taken raises the sequence
    /// too.
    static func raiseAll(_ configuration: PostgresConfiguration, logger: Logger) async {
        for sequence in allCases {
            do {
                let connection = try PostgresConnection(configuration: configuration, name: "order-ids")
                let raise = try await connection.withSession { session in
                    defer { session.close() }
                    return try sequence.raise(session)
                }
                if let raise { warn(sequence, raise, logger) }
            } catch {
                logger.error(
                    "a sequence of ids could not be compared with its table",
                    metadata: ["sequence": "\(sequence.rawValue)", "error": "\(error)"]
                )
            }
        }
    }

    static func warn(_ sequence: IDSequence, _ raise: Raise, _ logger: Logger) {
        logger.warning(
            "a sequence of ids was behind its table and has been raised: was the database restored?",
            metadata: ["sequence": "\(sequence.rawValue)", "next": "\(raise.from)", "raisedTo": "\(raise.to)"]
        )
    }
}
