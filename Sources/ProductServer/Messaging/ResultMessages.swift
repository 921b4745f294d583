import MessageBroker
import ServerKit
import StrictJSON

/// The messages about one command. `docs/messages.md` has their schema.
struct ResultMessages: Sendable {
    /// The version of a result.
    static let version: Int64 = 1
    /// A result's type.
    static let type = "stock.result"

    let command: IncomingCommand
    /// By the order's place in the command; empty for poison.
    let verdicts: [CommandLife.Verdict?]

    /// One part, as it is published.
    func message(_ part: CommandLife.Part, at time: Timestamp) -> OutgoingMessage {
        switch part {
        case .result: result(at: time)
        case .deadLetter: deadLetter()
        }
    }

    private func deadLetter() -> OutgoingMessage {
        let (reason, detail) =
            switch command.content {
            case .poison(let poison): (poison.reason, poison.detail)
            case .command(let command): (.productNotFound, "product \(command.product) does not exist")
            }
        var message = OutgoingMessage.deadLetter(command.delivery, reason: reason.rawValue)
        message.headers["reason"] = .string(reason.rawValue)
        message.headers["detail"] = .string(String(detail.prefix(500)))
        return message
    }

    private func result(at time: Timestamp) -> OutgoingMessage {
        let commandID: String?
        let product: Int64?
        switch command.content {
        case .command(let command): (commandID, product) = (command.messageID, command.product.rawValue)
        case .poison(let poison): (commandID, product) = (poison.messageID ?? namedByDelivery, poison.product)
        }
        let id = "R-" + (commandID ?? "unknown")
        var json = JSONWriter(capacity: 256 + 96 * max(1, verdicts.count))
        json.object { json in
            json.member("version", Self.version)
            json.member("type", Self.type)
            json.member("messageId", id)
            json.member("commandId", commandID)
            json.member("productId", product)
            json.member("time", time)
            json.name("results")
            switch command.content {
            case .command(let command):
                json.array(zip(command.orders, verdicts)) { Self.write(&$0, $1.0.id, $1.0.key, $1.1) }
            case .poison(let poison):
                json.array(poison.orders) { Self.write(&$0, $1.id, $1.key, .refused(poison.reason, remaining: nil)) }
            }
        }
        var headers: [String: HeaderValue] = [:]
        if let trace = command.delivery.headers["traceparent"]?.string, trace.utf8.count <= 128 { headers["traceparent"] = .string(trace) }
        return OutgoingMessage(
            exchange: StockGateTopology.resultsExchange,
            routingKey: StockGateTopology.resultRoutingKey,
            body: json.bytes,
            messageID: id,
            correlationID: commandID,
            type: Self.type,
            timestamp: UInt64(clamping: time.microsecondsSinceEpoch / 1_000_000),
            headers: headers
        )
    }

    /// The property may be as long as a name on the wire; its `R-` must fit too.
    private var namedByDelivery: String? {
        command.delivery.messageID.flatMap { (1...200).contains($0.utf8.count) ? $0 : nil }
    }

    private static func write(_ json: inout JSONWriter, _ order: Int64, _ key: String, _ verdict: CommandLife.Verdict?) {
        // Orders without a verdict are never told anything; their command is not published.
        guard let verdict else { return }
        json.object { json in
            json.member("orderId", order)
            json.member("key", key)
            switch verdict {
            case .committed(let remaining):
                json.member("outcome", "COMMITTED")
                json.member("reason", nil as String?)
                json.member("remainingStock", remaining)
            case .refused(let reason, let remaining):
                json.member("outcome", "REFUSED")
                json.member("reason", reason.rawValue)
                json.member("remainingStock", remaining)
            }
        }
    }
}
