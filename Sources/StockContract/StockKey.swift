package import APIErrors
import StrictJSON

/// The keys under which stock is taken and given back.
///
/// A decrease has a key `DEC-{name}`, its compensation `INC-{name}` with the same name. The name of an order's first run is the order's id; a later run's
/// name is the id, a point and the run's number, such as `DEC-8.2`. Other callers choose names of their own.
package enum StockKey {
    /// Begins every key of a decrease.
    package static let decreasePrefix = "DEC-"
    /// Begins every key of an increase.
    package static let increasePrefix = "INC-"

    /// The key of an order's decrease.
    /// - Parameter run: 1, or the number of a later run
    package static func decrease(order: Int64, run: Int64) -> String { decreasePrefix + name(order, run) }

    /// The key of an order's compensation.
    /// - Parameter run: 1, or the number of a later run
    package static func increase(order: Int64, run: Int64) -> String { increasePrefix + name(order, run) }

    private static func name(_ order: Int64, _ run: Int64) -> String { run == 1 ? "\(order)" : "\(order).\(run)" }

    /// The run of an order that the key of a decrease belongs to; nil if it is no key of this order.
    package static func run(of key: String, order: Int64) -> Int64? {
        let first = decrease(order: order, run: 1)
        guard key.hasPrefix(first) else { return nil }
        let rest = key.dropFirst(first.count)
        if rest.isEmpty { return 1 }
        guard rest.first == ".", let run = Values.id(rest.dropFirst()), run > 1 else { return nil }
        return run
    }

    /// Checks that a key is a decrease's.
    /// - Throws: `VALIDATION_ERROR`
    package static func checkedDecrease(_ key: String) throws(APIError) -> String { try check(key, prefix: decreasePrefix) }

    /// Checks that a key is an increase's.
    /// - Throws: `VALIDATION_ERROR`
    package static func checkedIncrease(_ key: String) throws(APIError) -> String { try check(key, prefix: increasePrefix) }

    private static func check(_ key: String, prefix: String) throws(APIError) -> String {
        guard key.hasPrefix(prefix), key.utf8.count > prefix.utf8.count else {
            throw .invalid(field: "Idempotency-Key", .keyPrefix, JSONMember("prefix", .string(prefix)))
        }
        return key
    }
}

extension ErrorMessage {
    static let keyPrefix = ErrorMessage(en: "{field} must begin with {prefix}.", ko: "{field}은(는) {prefix}(으)로 시작해야 합니다.")
}
