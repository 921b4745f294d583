import APIErrors
import ServerKit
import StrictJSON

/// What the product server decided about one order of a command.
struct StockResult: Sendable, Equatable {
    enum Outcome: String, Sendable, CaseIterable {
        /// Its stock is taken.
        case committed = "COMMITTED"
        /// It is not, and never will be under this key.
        case refused = "REFUSED"
    }

    var orderID: Int64
    /// The run of the order that the key belongs to.
    var run: Int64
    var outcome: Outcome
    /// An error code, of a refusal.
    var reason: String?
    /// Units left, if the product server says so.
    var remainingStock: Int64?
}

/// The results of one command. See docs/messages.md.
struct StockResultMessage: Sendable, Equatable {
    /// Why a message cannot be read: `code` goes into the header of the dead letter.
    struct Poison: Error, Equatable {
        var code: String
        var detail: String
    }

    static let type = "stock.result"
    /// Far above what one group of orders holds.
    static let maximumResults = 100_000

    /// Nil for a command that could not be read; `commandId` is null then, too.
    var productID: Int64?
    /// When the product server decided.
    var time: Timestamp?
    var results: [StockResult]

    /// Reads a message. Members that it does not know are ignored.
    init(_ body: [UInt8]) throws(Poison) {
        let object: JSONObjectReader
        do {
            object = try JSONObjectReader(body)
        } catch {
            throw Poison(code: "MALFORMED", detail: StockResultMessage.detail(error))
        }
        do {
            guard try object.int("version", in: 0...Int64.max) == 1 else { throw Poison(code: "UNKNOWN_VERSION", detail: "version") }
            guard try object.text("type") == StockResultMessage.type else { throw Poison(code: "UNKNOWN_TYPE", detail: "type") }
            self.productID = try object.optionalInt("productId", in: Values.idRange)
            self.time = nil
            if let text = try object.text("time") {
                guard let time = Timestamp(rfc3339: text) else { throw Poison(code: "VALIDATION_ERROR", detail: "time") }
                self.time = time
            }
            self.results = []
            for one in try object.objects("results", count: 1...StockResultMessage.maximumResults) {
                let id = try one.int("orderId", in: Values.idRange)
                guard let run = StockResultMessage.run(of: try one.text("key") ?? "", orderID: id) else {
                    throw Poison(code: "VALIDATION_ERROR", detail: "key of order \(id)")
                }
                self.results.append(
                    StockResult(
                        orderID: id,
                        run: run,
                        outcome: try one.choice("outcome", StockResult.Outcome.self),
                        reason: try one.optionalString("reason", length: 1...64),
                        remainingStock: try one.optionalInt("remainingStock", in: 0...Int64.max)
                    )
                )
            }
        } catch let error as APIError {
            throw Poison(code: "VALIDATION_ERROR", detail: StockResultMessage.detail(error))
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

    /// The run that a key `DEC-{id}` or `DEC-{id}.{n}` belongs to; nil if it is no key of the order.
    private static func run(of key: String, orderID: Int64) -> Int64? {
        let own = "DEC-\(orderID)"
        guard key.hasPrefix(own) else { return nil }
        let rest = key.dropFirst(own.count)
        if rest.isEmpty { return 1 }
        guard rest.first == ".", let run = Values.id(rest.dropFirst()), run > 1 else { return nil }
        return run
    }
}
