import MessageBroker
import StockContract

/// A delivery and its content.
struct IncomingCommand: Sendable {
    enum Content: Sendable {
        case command(StockCommand)
        case poison(PoisonCommand)
    }

    let delivery: Delivery
    let content: Content
    /// Whether the orders may have been decided before. Then the ledger decides them, and Redis never rejects them.
    let isRepeat: Bool

    /// - Parameter isCopy: whether a message was seen before
    init(_ delivery: Delivery, isCopy: (StockCommand) -> Bool = { _ in false }) {
        self.delivery = delivery
        var isRepeat = delivery.isRedelivered || delivery.deliveryCount > 0 || (delivery.headers["attempt"]?.integer ?? 1) > 1
        do throws(PoisonCommand) {
            let command = try StockCommand(delivery.body)
            content = .command(command)
            if isCopy(command) { isRepeat = true }
        } catch {
            content = .poison(error)
        }
        self.isRepeat = isRepeat
    }

    /// The number of orders to decide; zero for a poisonous message.
    var orderCount: Int {
        if case .command(let command) = content { command.orders.count } else { 0 }
    }
}
