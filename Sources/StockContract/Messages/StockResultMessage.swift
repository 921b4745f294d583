import APIErrors
package import StrictJSON

/// What the product server decided about one order of a command.
package struct OrderStockResult: Sendable, Equatable {
    package enum Outcome: String, Sendable, CaseIterable {
        /// Its stock is taken.
        case committed = "COMMITTED"
        /// It is not, and never will be under this key.
        case refused = "REFUSED"
    }

    package var orderID: Int64
    /// The run of the order that the key belongs to.
    package var run: Int64
    package var outcome: Outcome
    /// An error code, of a refusal.
    package var reason: String?
    /// Units left, if the product server says so.
    package var remainingStock: Int64?

    package init(orderID: Int64, run: Int64, outcome: Outcome, reason: String?, remainingStock: Int64?) {
        self.orderID = orderID
        self.run = run
        self.outcome = outcome
        self.reason = reason
        self.remainingStock = remainingStock
    }
}

/// A message of the queue ``StockGateTopology/resultsQueue``: what was decided about the orders of one command. `docs/messages.md` has its schema.
package struct StockResultMessage: Sendable, Equatable {
    /// Why a message cannot be read: `code` goes into the header of the dead letter.
    package struct Poison: Error, Equatable {
        package var code: String
        package var detail: String

        /// The code of a message that can be read and whose results PostgreSQL refuses to write.
        package static let notWritten = "NOT_WRITTEN"

        package init(code: String, detail: String) {
            self.code = code
            self.detail = detail
        }
    }

    /// The version that is written and understood.
    package static let version: Int64 = 1
    /// The message's type.
    package static let type = "stock.result"
    /// Far above what one group of orders holds.
    package static let maximumResults = 100_000

    package var messageID: String?
    /// The command's id; nil for a command that could not be read.
    package var commandID: String?
    /// Nil for a command that could not be read.
    package var productID: Int64?
    /// When the product server decided.
    package var time: Timestamp?
    package var results: [OrderStockResult]

    package init(messageID: String?, commandID: String?, productID: Int64?, time: Timestamp?, results: [OrderStockResult]) {
        self.messageID = messageID
        self.commandID = commandID
        self.productID = productID
        self.time = time
        self.results = results
    }

    // MARK: Writing

    /// The result's id.
    package static func messageID(ofCommand id: String?) -> String { "R-" + (id ?? "unknown") }

    /// A message as it is sent. `results` writes each with ``write(_:order:key:outcome:reason:remainingStock:)``.
    package static func body(
        messageID: String?,
        commandID: String?,
        productID: Int64?,
        time: Timestamp?,
        count: Int,
        results: (inout JSONWriter) -> Void
    ) -> [UInt8] {
        var json = JSONWriter(capacity: 256 + 96 * max(1, count))
        json.object { json in
            json.member("version", Self.version)
            json.member("type", Self.type)
            json.member("messageId", messageID)
            json.member("commandId", commandID)
            json.member("productId", productID)
            json.member("time", time)
            json.name("results")
            results(&json)
        }
        return json.bytes
    }

    /// Writes one order's result. The key is the command's own: the order server refuses one that is no order's.
    package static func write(
        _ json: inout JSONWriter,
        order: Int64,
        key: String,
        outcome: OrderStockResult.Outcome,
        reason: String?,
        remainingStock: Int64?
    ) {
        json.object { json in
            json.member("orderId", order)
            json.member("key", key)
            json.member("outcome", outcome.rawValue)
            json.member("reason", reason)
            json.member("remainingStock", remainingStock)
        }
    }

    /// The message as it is sent.
    package var body: [UInt8] {
        Self.body(messageID: messageID, commandID: commandID, productID: productID, time: time, count: results.count) { json in
            json.array(results) { json, one in
                let key = StockKey.decrease(order: one.orderID, run: one.run)
                Self.write(
                    &json,
                    order: one.orderID,
                    key: key,
                    outcome: one.outcome,
                    reason: one.reason,
                    remainingStock: one.remainingStock
                )
            }
        }
    }

    // MARK: Reading

    /// Reads a message. Members that it does not know are ignored.
    package init(_ body: [UInt8]) throws(Poison) {
        let object: JSONObjectReader
        do {
            object = try JSONObjectReader(body)
        } catch {
            throw Poison(code: "MALFORMED", detail: StockResultMessage.detail(error))
        }
        do {
            guard try object.int("version", in: 0...Int64.max) == Self.version else {
                throw Poison(code: "UNKNOWN_VERSION", detail: "version")
            }
            guard try object.text("type") == Self.type else { throw Poison(code: "UNKNOWN_TYPE", detail: "type") }
            // Nothing depends on the two ids: they are for whoever looks into a queue.
            messageID = (try? object.text("messageId")) ?? nil
            commandID = (try? object.text("commandId")) ?? nil
            productID = try object.optionalInt("productId", in: Values.idRange)
            self.time = nil
            if let text = try object.text("time") {
                guard let time = Timestamp(rfc3339: text) else { throw Poison(.validationError, detail: "time") }
                self.time = time
            }
            results = []
            for one in try object.objects("results", count: 1...Self.maximumResults) {
                let id = try one.int("orderId", in: Values.idRange)
                guard let run = StockKey.run(of: try one.text("key") ?? "", order: id) else {
                    throw Poison(.validationError, detail: "key of order \(id)")
                }
                results.append(
                    OrderStockResult(
                        orderID: id,
                        run: run,
                        outcome: try one.choice("outcome", OrderStockResult.Outcome.self),
                        reason: try one.optionalString("reason", length: 1...64),
                        remainingStock: try one.optionalInt("remainingStock", in: Values.remainingRange)
                    )
                )
            }
        } catch let error as APIError {
            throw Poison(.validationError, detail: StockResultMessage.detail(error))
        } catch let error as Poison {
            throw error
        } catch {
            throw Poison(code: "MALFORMED", detail: "")
        }
    }

    private static func detail(_ error: APIError) -> String {
        var json = JSONWriter()
        json.value(error.details)
        return json.string
    }
}

extension StockResultMessage.Poison {
    fileprivate init(_ code: APIErrorCode, detail: String) { self.init(code: code.rawValue, detail: detail) }
}
