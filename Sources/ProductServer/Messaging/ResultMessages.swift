import APIErrors
import MessageBroker
import StockContract
import StrictJSON

/// The messages about one command. `docs/messages.md` has their schema.
struct ResultMessages: Sendable {
    let command: IncomingCommand
    /// The verdicts, by each order's position in the command; empty for a poisonous message.
    let verdicts: [CommandLife.Verdict?]
    /// The queue for commands of locked products.
    var asideQueue = StockGateTopology.asideQueue

    /// The message for one part.
    func message(_ part: CommandLife.Part, at time: Timestamp) -> OutgoingMessage {
        switch part {
        case .result: result(at: time)
        case .deadLetter: deadLetter()
        case .aside: aside()
        }
    }

    /// The command as it came, but an attempt later: some of its orders may have been decided.
    private func aside() -> OutgoingMessage {
        var copy = OutgoingMessage.deadLetter(
            command.delivery,
            to: StockGateTopology.commandsExchange,
            reason: APIErrorCode.lockTimeout.rawValue,
            header: "aside"
        )
        copy.routingKey = asideQueue
        // What the broker wrote on the way here says nothing of the message that goes out now.
        copy.headers = copy.headers.filter { !$0.key.hasPrefix("x-") }
        copy.headers["attempt"] = .integer(min(max(1, command.delivery.headers["attempt"]?.integer ?? 1), .max - 1) + 1)
        return copy
    }

    private func deadLetter() -> OutgoingMessage {
        let (reason, detail) =
            switch command.content {
            case .poison(let poison): (poison.reason, poison.detail)
            case .command(let command): (.productNotFound, "product \(command.productID) does not exist")
            }
        return OutgoingMessage.deadLetter(command.delivery, reason: reason.rawValue, detail: detail, maximumDetail: 500)
    }

    private func result(at time: Timestamp) -> OutgoingMessage {
        let commandID: String?
        let product: Int64?
        switch command.content {
        case .command(let command): (commandID, product) = (command.messageID, command.productID)
        case .poison(let poison): (commandID, product) = (poison.messageID ?? namedByDelivery, poison.productID)
        }
        let id = StockResultMessage.messageID(ofCommand: commandID)
        let body = StockResultMessage.body(messageID: id, commandID: commandID, productID: product, time: time, count: verdicts.count) {
            json in
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
            body: body,
            messageID: id,
            correlationID: commandID,
            type: StockResultMessage.type,
            timestamp: UInt64(clamping: time.microsecondsSinceEpoch / 1_000_000),
            headers: headers
        )
    }

    /// The delivery's own id, if it is short enough: a name on the wire has a maximum length, and the prefix `R-` must fit too.
    private var namedByDelivery: String? {
        command.delivery.messageID.flatMap { (1...200).contains($0.utf8.count) ? $0 : nil }
    }

    private static func write(_ json: inout JSONWriter, _ order: Int64, _ key: String, _ verdict: CommandLife.Verdict?) {
        // An order has a verdict before its command's result is published. Without one there is nothing to say of it.
        guard let verdict else { return }
        switch verdict {
        case .committed(let remaining):
            StockResultMessage.write(&json, order: order, key: key, outcome: .committed, reason: nil, remainingStock: remaining)
        case .refused(let reason, let remaining):
            StockResultMessage.write(
                &json,
                order: order,
                key: key,
                outcome: .refused,
                reason: reason.rawValue,
                remainingStock: remaining
            )
        }
    }
}
