/// Compares both databases order by order.
///
/// Invariant: both sides come sorted by order id, so one walk over the two sees every order exactly once, with one page
/// of each side in memory. It stops when both sides are empty; ids that do not ascend end it with an error, for then it would prove nothing.
public struct OrderMatching: Equatable, Sendable {
    /// Orders whose two sides do not fit, or of which a buyer was told otherwise; each once, however much is wrong with it.
    public private(set) var unmatched = 0
    /// Confirmed answers that buyers got and the order database does not bear out.
    public private(set) var lostAnswers = 0
    /// Up to ten of them in words, all findings about an order in one text.
    public private(set) var examples: [String] = []
    /// How many orders `examples` tells of.
    public private(set) var exampleOrders = 0
    /// Answers that the stores do not bear out, one by one: at most `offenderLimit`.
    public private(set) var offenders: [Offender] = []
    /// How many such answers there are, those beyond the bound included.
    public private(set) var wrongAnswers = 0
    /// Answers to buyers that were compared with the stores.
    public internal(set) var answersChecked = 0
    /// The orders that were counted in `unmatched`, at most `wrongOrderLimit`. An order beyond the bound counts once for each finding.
    private var wrongOrders: Set<Int64> = []
    /// Where in `examples` an order is told of.
    private var exampleOfOrder: [Int64: Int] = [:]

    private static let wrongOrderLimit = 1_000_000
    /// A text that grows with each finding about its order ends here.
    private static let exampleLength = 400

    /// Findings that are spelled out.
    public static let exampleLimit = 10

    /// Offenders that are kept.
    public static let offenderLimit = 1_000

    /// An answer to a buyer that the stores do not bear out.
    public struct Offender: Equatable, Sendable {
        /// The order that the buyer was told of, or that the stores have under the buyer's key.
        public var order: Int64
        /// The buyer's key, where it is known.
        public var key: String?
        /// Who was told, where it is known.
        public var buyer: String?
        /// What the buyer was told.
        public var told: String
        /// What the stores have.
        public var found: String
    }

    /// Nothing compared yet.
    public init() {}

    /// A side whose ids do not ascend.
    public struct UnsortedPage: Error, CustomStringConvertible {
        /// What was read.
        public let description: String
    }

    /// Judges one order by what each side has of it. Returns what is wrong, nil if nothing is.
    @discardableResult
    public mutating func add(order: OrderRow?, ledger: LedgerRow?) -> String? {
        let rows = (ledger?.decrements ?? 0) - (ledger?.increments ?? 0)
        let units = (ledger?.decremented ?? 0) - (ledger?.incremented ?? 0)
        let seen =
            "\(ledger?.decrements ?? 0) decrements (\(ledger?.decremented ?? 0) units), "
            + "\(ledger?.increments ?? 0) increments (\(ledger?.incremented ?? 0) units)"
        guard let order else {
            guard rows != 0 || units != 0 else { return nil }
            return note(ledger?.orderID ?? 0, "\(seen) in the ledger, no such order")
        }
        let isSound =
            switch order.status {
            case "CONFIRMED": rows == 1 && units == order.quantity
            case "CANCELLED": rows == 0 && units == 0 && (ledger?.decrements ?? 0) != 0
            // The order's outcome is open. It is counted as pending, which fails the audit by itself.
            case "PENDING": true
            default: rows == 0 && units == 0
            }
        if isSound { return nil }
        let status = order.status == "CONFIRMED" ? "CONFIRMED for \(order.quantity) units" : order.status
        return note(order.id, "\(status), the ledger has \(seen)")
    }

    /// Counts ledger rows that belong to nobody.
    public mutating func add(decrementsWithoutOrder count: Int64) {
        guard count > 0 else { return }
        unmatched += Int(count)
        describe("\(count) decrements in the ledger name no order", orders: Int(count))
    }

    /// Orders are CONFIRMED for more units than the ledger has given out.
    public mutating func add(unitsWithoutDecrement units: Int64) {
        unmatched += 1
        describe("CONFIRMED orders hold \(units) units more than the ledger has given out")
    }

    private mutating func offend(_ order: Int64, key: String?, buyer: String?, told: String, found: String) {
        wrongAnswers += 1
        guard offenders.count < Self.offenderLimit else { return }
        offenders.append(Offender(order: order, key: key, buyer: buyer, told: told, found: found))
    }

    /// A buyer was told *sold out* and of no order, and the order database has one under the buyer's key.
    mutating func addWrongSoldOut(_ order: OrderRow, key: String) {
        offend(order.id, key: key, buyer: order.buyer, told: "SOLD OUT", found: "the order is \(order.status)")
        note(order.id, "the buyer was told under the key \(key) that it is sold out, the order is \(order.status)")
    }

    /// A buyer was told that an order is confirmed which belongs to another key.
    mutating func addWrongKey(_ order: OrderRow, told key: String, buyer: String?) {
        let owner = order.key ?? "no key"
        offend(order.id, key: key, buyer: buyer, told: "CONFIRMED", found: "the order was placed under \(owner)")
        note(order.id, "a buyer was told of it under the key \(key), it was placed under \(owner)")
    }

    /// A buyer was told *confirmed*, and the order database does not say so.
    public mutating func addLostAnswer(order id: Int64, because reason: String, key: String? = nil, buyer: String? = nil) {
        lostAnswers += 1
        offend(id, key: key, buyer: buyer, told: "CONFIRMED", found: reason)
        note(id, "the buyer was told CONFIRMED, \(reason)")
    }

    /// A buyer was told *sold out* and of an order that failed for it, and the order database has it otherwise.
    public mutating func addWrongRefusal(order id: Int64, because reason: String, key: String? = nil, buyer: String? = nil) {
        offend(id, key: key, buyer: buyer, told: "SOLD OUT", found: reason)
        note(id, "the buyer was told that it is sold out, \(reason)")
    }

    /// A buyer was told *cancelled*, and the order database has it otherwise.
    mutating func addLostCancellation(_ order: OrderRow) {
        offend(order.id, key: order.key, buyer: order.buyer, told: "CANCELLED", found: "the order is \(order.status)")
        note(order.id, "the buyer was told CANCELLED, the order is \(order.status)")
    }

    /// What a buyer was told is in the order database, and the ledger does not bear it out: `finding`, which has been noted already.
    private mutating func addUnbooked(_ order: OrderRow, told: String, key: String?, finding: String) {
        offend(order.id, key: key ?? order.key, buyer: order.buyer, told: told, found: "the order is \(finding)")
    }

    /// Counts an order, if it is not counted yet, and tells what is wrong with it.
    @discardableResult
    private mutating func note(_ order: Int64, _ finding: String) -> String {
        if let place = exampleOfOrder[order], wrongOrders.contains(order) {
            if examples[place].count < Self.exampleLength { examples[place] += "; \(finding)" }
            return finding
        }
        let isNew = wrongOrders.count < Self.wrongOrderLimit ? wrongOrders.insert(order).inserted : !wrongOrders.contains(order)
        guard isNew else { return finding }
        unmatched += 1
        if describe("order \(order): \(finding)") { exampleOfOrder[order] = examples.count - 1 }
        return finding
    }

    @discardableResult
    private mutating func describe(_ finding: String, orders: Int = 1) -> Bool {
        guard examples.count < Self.exampleLimit else { return false }
        examples.append(finding)
        exampleOrders += orders
        return true
    }

    /// Walks over both sides.
    /// - Parameters:
    ///   - confirmedAnswers: ids that buyers were told are confirmed, in any order. Each must be a CONFIRMED order, and no id may have been given twice.
    ///   - refusedAnswers: likewise ids of orders that buyers were told failed for want of stock. Each must be a FAILED order.
    ///   - told: what buyers were told under which keys; nil if that is not known.
    ///   - pageSize: rows in memory of each side.
    public mutating func compare(
        _ source: some AuditSource,
        product: Int64,
        confirmedAnswers: [Int64],
        refusedAnswers: [Int64] = [],
        cancelledAnswers: [Int64] = [],
        told: ToldAnswers? = nil,
        pageSize: Int = 25_000
    ) async throws {
        var orders = Page<OrderRow>(id: \.id) { try await source.orders(of: product, after: $0, limit: pageSize) }
        var ledger = Page<LedgerRow>(id: \.orderID) { try await source.ledger(of: product, after: $0, limit: pageSize) }
        // A buyer may have cancelled since: then the success was durable all the same.
        var confirmed = Answers(confirmedAnswers, statuses: ["CONFIRMED", "CANCELLED"])
        var refused = Answers(refusedAnswers, statuses: ["FAILED"])
        // The cancellations are of all products together. Only those that are found among this product's orders can be judged here.
        let cancelled = Set(cancelledAnswers)
        answersChecked += confirmedAnswers.count + refusedAnswers.count
        var keys = told.map { ToldKeys($0) }
        if let told { answersChecked += told.soldOut.count }
        var order = try await orders.next()
        var row = try await ledger.next()
        while order != nil || row != nil {
            let id = min(order?.id ?? .max, row?.orderID ?? .max)
            let thisOrder = order?.id == id ? order : nil
            let thisRow = row?.orderID == id ? row : nil
            let finding = add(order: thisOrder, ledger: thisRow)
            for (id, reason) in confirmed.findings(upTo: id, order: thisOrder) {
                addLostAnswer(order: id, because: reason, key: keys?.key(of: id), buyer: buyer(of: id, thisOrder, keys))
            }
            for (id, reason) in refused.findings(upTo: id, order: thisOrder) {
                let order = thisOrder.flatMap { $0.id == id ? $0 : nil }
                addWrongRefusal(order: id, because: reason, key: order?.key, buyer: order?.buyer)
            }
            if let thisOrder {
                if let finding {
                    // The order database agrees with the buyer, the ledger does not.
                    if confirmed.agreed == id {
                        addUnbooked(thisOrder, told: "CONFIRMED", key: keys?.key(of: id), finding: finding)
                    }
                    if refused.agreed == id {
                        addUnbooked(thisOrder, told: "SOLD OUT", key: nil, finding: finding)
                    }
                }
                judge(thisOrder, by: &keys)
                if thisOrder.status != "CANCELLED", cancelled.contains(thisOrder.id) { addLostCancellation(thisOrder) }
            }
            if thisOrder != nil { order = try await orders.next() }
            if thisRow != nil { row = try await ledger.next() }
        }
        for (id, reason) in confirmed.findings(upTo: .max, order: nil) {
            addLostAnswer(order: id, because: reason, key: keys?.key(of: id), buyer: keys?.buyer(of: id))
        }
        for (id, reason) in refused.findings(upTo: .max, order: nil) { addWrongRefusal(order: id, because: reason) }
    }

    /// Who was told of an order: as the harness remembers it, else as the order database has it.
    private func buyer(of id: Int64, _ order: OrderRow?, _ keys: ToldKeys?) -> String? {
        keys?.buyer(of: id) ?? (order?.id == id ? order?.buyer : nil)
    }

    /// What buyers were told of orders, in the order of their ids.
    private struct Answers {
        private var ids: ArraySlice<Int64>
        private let statuses: Set<String>
        /// The last order of which the order database says what the buyer was told.
        private(set) var agreed: Int64?

        init(_ ids: [Int64], statuses: Set<String>) {
            self.ids = ids.sorted()[...]
            self.statuses = statuses
        }

        /// What is wrong with the answers up to an id, of which the order database has `order`.
        mutating func findings(upTo id: Int64, order: OrderRow?) -> [(id: Int64, reason: String)] {
            var findings: [(id: Int64, reason: String)] = []
            while let answer = ids.first, answer <= id {
                ids.removeFirst()
                if let order, order.id == answer {
                    if statuses.contains(order.status) {
                        agreed = answer
                    } else {
                        findings.append((answer, "the order is \(order.status)"))
                    }
                } else {
                    findings.append((answer, "there is no such order"))
                }
                while ids.first == answer {
                    ids.removeFirst()
                    findings.append((answer, "and so was another buyer, by the same id"))
                }
            }
            return findings
        }
    }

    private struct Page<Row> {
        let id: (Row) -> Int64
        let read: (Int64) async throws -> [Row]
        var rows: ArraySlice<Row> = []
        var last = Int64.min
        var isAtEnd = false

        init(id: @escaping (Row) -> Int64, read: @escaping (Int64) async throws -> [Row]) {
            self.id = id
            self.read = read
        }

        mutating func next() async throws -> Row? {
            if rows.isEmpty, !isAtEnd {
                rows = try await read(last)[...]
                isAtEnd = rows.isEmpty
            }
            guard let row = rows.popFirst() else { return nil }
            guard id(row) > last else { throw UnsortedPage(description: "ids do not ascend: \(id(row)) after \(last)") }
            last = id(row)
            return row
        }
    }
}
