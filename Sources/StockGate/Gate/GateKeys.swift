import RedisClient

/// The keys of one product in Redis. They share a hash tag, so that Redis Cluster keeps them in one slot.
///
/// A class, because a call takes the names along from place to place: one reference to count, and not six.
final class GateKeys: Sendable {
    let stock: String
    let meta: String
    let pending: String
    let owed: String
    let marks: String
    let marker: String

    /// A pattern of Redis that matches the name of every product's marks.
    static let marksPattern = "sg:{*}:marks"

    /// The product whose marks have this name; nil if the name belongs to no product.
    static func product(ofMarks name: String) -> ProductID? {
        guard name.hasPrefix("sg:{"), name.hasSuffix("}:marks") else { return nil }
        let digits = name.dropFirst(4).dropLast(7)
        guard let id = Int64(digits), id > 0, String(id) == digits else { return nil }
        return ProductID(id)
    }

    /// The slot of all keys of a product in Redis Cluster.
    static func slot(of product: ProductID) -> HashSlot { HashSlot(key: String(product.rawValue)) }

    /// A hash tag that no product has, whose slot is served as `isServed` says: for keys with which a node is tried out. Nil if none is found in some hundred
    /// thousand, of which a node with one slot has about one in sixteen thousand.
    static func tagOfNoProduct(where isServed: (HashSlot) -> Bool) -> String? {
        (0...300_000).lazy.map { String(-$0) }.first { isServed(HashSlot(key: $0)) }
    }

    init(_ product: ProductID) {
        let prefix = "sg:{\(product.rawValue)}:"
        stock = prefix + "stock"
        meta = prefix + "meta"
        pending = prefix + "pending"
        owed = prefix + "owed"
        marks = prefix + "marks"
        marker = prefix + "marker"
    }
}
