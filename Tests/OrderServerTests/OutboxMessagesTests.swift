import APIErrors
import PostgresClient
import PrivateServers
import StockContract
import StrictJSON
import Testing

@testable import OrderServer

/// The texts of messages are made by functions of the database. Here they are compared with what the contract's writers make of the same values.
@Suite("Messages are written by the database as the contract writes them", .serialized, .timeLimit(.minutes(5)))
struct OutboxMessagesTests {
    /// Everything that JSON escapes, and characters of one to four bytes.
    private static let texts = [
        "u-001", "\"", "\\", "/", "é한😀\u{2028}", "{\"a\":[1]}", "'; drop table orders; --", "%s $1", " ", "\u{FFFD}",
    ]
    private static let numbers: [Int64] = [1, 2, 7, 1_000_000_000, .max]
    private static let times: [Int64] = [
        0, -1, 1, 999_999, 1_769_851_800_123_456, 951_782_400_000_000, 4_102_444_799_999_999, -62_135_596_800_000_000,
    ]

    private func bed(_ body: (PostgresPool) async throws -> Void) async throws {
        try await TestBed.run(servers: 0) { bed in
            _ = try await Migrator(configuration: PostgresConfiguration.patient(bed.databaseURL)).apply(OrderStore.migrations)
            try await body(bed.pool)
        }
    }

    private func pick<Value>(_ values: [Value], _ index: Int) -> Value { values[index % values.count] }

    @Test("times")
    func times() async throws {
        try await bed { pool in
            for microseconds in Self.times {
                let sql = "select outbox_time('epoch'::timestamptz + $1 * interval '1 microsecond')"
                let text = try await pool.query(sql, [.int(microseconds)]).one().decode(0, as: String.self)
                #expect(text == Timestamp(microsecondsSinceEpoch: microseconds).description)
            }
        }
    }

    @Test("commands")
    func commands() async throws {
        try await bed { pool in
            for index in 0..<40 {
                let orders = (0..<(1 + index % 4)).map { place in
                    let id = pick(Self.numbers, index + place)
                    return StockCommand.Order(
                        id: id,
                        key: StockKey.decrease(order: id, run: 1),
                        quantity: pick([1, 3, 1_000_000_000], index + place),
                        buyerID: (index + place) % 3 == 0 ? nil : pick(Self.texts, index * 3 + place),
                        traceparent: (index + place) % 2 == 0 ? nil : "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                    )
                }
                let command = StockCommand(
                    messageID: String(pick(Self.numbers, index)),
                    productID: pick(Self.numbers, index / 2),
                    time: Timestamp(microsecondsSinceEpoch: pick(Self.times, index)),
                    orders: orders
                )
                var texts: [String] = []
                for order in orders {
                    let row = try await pool.query(
                        "select outbox_command_order($1, $2, $3, $4)",
                        [.int(order.id), .int(order.quantity), .optionalText(order.buyerID), .optionalText(order.traceparent)]
                    ).one()
                    texts.append(try row.decode(0, as: String.self))
                }
                let text = try await pool.query(
                    "select outbox_message($1, $2::bigint, $3, $4, $5)",
                    [
                        .text(OutboxSQL.decreaseTopic), .text(command.messageID), .int(command.productID), .text(command.time.description),
                        .text(texts.joined(separator: ",")),
                    ]
                ).one().decode(0, as: String.self)
                #expect(text == String(decoding: command.body, as: UTF8.self))
                #expect(try StockCommand(Array(text.utf8)) == command)
            }
        }
    }

    @Test("events")
    func events() async throws {
        try await bed { pool in
            for index in 0..<40 {
                let order = OrderEvent.Order(
                    id: pick(Self.numbers, index),
                    productID: pick(Self.numbers, index / 2),
                    productCode: index % 2 == 0 ? nil : pick(Self.texts, index),
                    buyerID: index % 3 == 0 ? nil : pick(Self.texts, index / 2),
                    quantity: pick([1, 3, 1_000_000_000], index),
                    unitPrice: index % 4 == 0 ? nil : pick([0, 39_000, 1_000_000_000_000], index),
                    status: pick(OrderStatus.allCases, index),
                    failReason: index % 5 == 0 ? nil : pick(Self.texts, index + 1),
                    run: pick(Self.numbers, index + 1),
                    version: pick(Self.numbers, index + 2),
                    createdAt: Timestamp(microsecondsSinceEpoch: pick(Self.times, index)),
                    updatedAt: Timestamp(microsecondsSinceEpoch: pick(Self.times, index + 1))
                )
                let event = OrderEvent(
                    messageID: String(pick(Self.numbers, index)),
                    kind: pick(OrderEvent.Kind.allCases, index),
                    time: Timestamp(microsecondsSinceEpoch: pick(Self.times, index + 2)),
                    orders: [order]
                )
                let text = try await pool.query(
                    """
                    select outbox_message($1, $2::bigint, null, $3, outbox_event_order($4, $5, $6, $7, $8, $9::bigint, $10, $11, $12, $13, $14, $15))
                    """,
                    [
                        .text(event.kind.rawValue), .text(event.messageID ?? ""), .text(event.time.description), .int(order.id),
                        .int(order.productID), .optionalText(order.productCode), .optionalText(order.buyerID), .int(order.quantity),
                        .optionalText(order.unitPrice.map(String.init)), .text(order.status.rawValue), .optionalText(order.failReason),
                        .int(order.run), .int(order.version), .text(order.createdAt.description), .text(order.updatedAt.description),
                    ]
                ).one().decode(0, as: String.self)
                #expect(text == String(decoding: event.body, as: UTF8.self))
                #expect(try OrderEvent(Array(text.utf8)) == event)
            }
        }
    }
}
