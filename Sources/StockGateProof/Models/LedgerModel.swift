public import StockGate

/// A model of what PostgreSQL holds, with the replies of the functions in `StockGate/Ledger/Migrations`. Contract tests compare the two.
///
/// Every method is one statement: it takes effect as a whole or, if it throws, not at all. With a `fault` it breaks a rule.
public struct LedgerModel: Hashable, Sendable {
    /// A row of `product_stock`.
    public struct Product: Hashable, Sendable {
        /// Its id.
        public var id: ProductID
        /// Units now.
        public var stock: Int64
        /// Units at the beginning.
        public var initial: Int64
        /// Its fence.
        public var fence: Fence = 1
        /// Whether the product is on sale.
        public var isOnSale = true
        /// Whether the product is gated by Redis.
        public var isGated = true
    }

    /// A row of `stock_ledger`.
    public struct Row: Hashable, Sendable {
        /// The unique key.
        public var key: String
        /// The product.
        public var product: ProductID
        /// What the row did to the stock.
        public var direction: LedgerEntry.Direction
        /// The row's units. For a closed key: the units that its closing named, or 0 if the row is from before they were kept.
        public var quantity: Quantity
        /// The order.
        public var orderID: Int64
        /// The reservation's fence; 0 without one.
        public var fence: Fence
        /// The reservation's token, or without one the mark of the attempt; 0 without either.
        public var token: Token
        /// Stock after it.
        public var remaining: Int64
    }

    /// The statement was rolled back with SQLSTATE SG001 or 23505: a key occurs twice in one batch, or somebody else has written it since the lookup.
    public struct KeyInUse: Error, Hashable, Sendable {}

    /// Products, by id.
    public private(set) var products: [Product] = []
    /// Ledger rows, by key.
    public private(set) var rows: [Row] = []
    /// If false, rows do not keep the stock after them, so that states differ only in what the protocol depends on.
    public var keepsRemaining = true

    /// Creates an empty ledger.
    public init() {}

    // MARK: Set-up and looks

    /// Adds a product.
    public mutating func add(_ product: ProductID, stock: Int64, isGated: Bool = true, isOnSale: Bool = true) {
        products.append(Product(id: product, stock: stock, initial: stock, isOnSale: isOnSale, isGated: isGated))
        products.sort { $0.id < $1.id }
    }

    /// Adds a row in the form that an earlier version of the functions wrote. Does not change the stock.
    public mutating func addRow(
        _ key: String,
        _ direction: LedgerEntry.Direction,
        _ product: ProductID,
        quantity: Quantity,
        orderID: Int64
    ) {
        _ = insert(
            Row(
                key: key,
                product: product,
                direction: direction,
                quantity: quantity,
                orderID: orderID,
                fence: 0,
                token: 0,
                remaining: 0
            )
        )
    }

    /// The product's row.
    public func product(_ id: ProductID) -> Product? { products.first { $0.id == id } }

    /// The row of a key.
    public func row(_ key: String) -> Row? { Self.row(key, in: rows) }

    /// Looks up a key without a lock.
    public func lookUp(_ key: String) -> LedgerEntry? {
        row(key).map {
            LedgerEntry(
                product: $0.product,
                orderID: $0.orderID,
                quantity: $0.quantity,
                remaining: $0.remaining,
                direction: $0.direction,
                fence: $0.fence,
                token: $0.token
            )
        }
    }

    // MARK: The statements

    /// What `stock_commit` does.
    /// - Parameter stale: the rows of an earlier moment, which a ledger with the fault of looking before locking would read
    public mutating func commit(
        _ batch: [CommitRequest],
        lookedUpIn stale: [Row]? = nil,
        fault: Fault? = nil
    ) throws(KeyInUse) -> [CommitReply] {
        let known = fault == .lookupBeforeLock ? stale ?? rows : rows
        var after = self
        var replies = batch.map { _ in CommitReply(outcome: .productMissing, lockedFence: 0, bumped: false, remaining: 0, isGated: false) }
        var written: [Row] = []
        for place in after.products.indices {
            let product = after.products[place]
            var stockLeft = product.stock
            var bump = false
            var members: [Int] = []
            for (index, request) in batch.enumerated() where request.decrease.product == product.id {
                members.append(index)
                let quantity = request.decrease.quantity
                var remaining = stockLeft
                let outcome: CommitOutcome
                var closes = false
                if let row = Self.row(request.decrease.key, in: known) {
                    let isMine = request.fence > 0 && row.fence == request.fence && row.token == request.token && row.product == product.id
                    if row.direction != .out {
                        outcome = .keyClosed
                    } else if row.product != product.id || row.quantity != quantity || row.orderID != request.decrease.orderID {
                        outcome = isMine ? .keyReusedMine : .keyReused
                    } else {
                        outcome = isMine ? .duplicateMine : .duplicateOther
                        remaining = row.remaining
                    }
                    if isMine && request.fence != product.fence && fault != .duplicateBehindSilent { bump = true }
                } else if !product.isOnSale {
                    outcome = .notOnSale
                    closes = request.isFirm && fault != .notOnSaleLeavesOpen
                } else if stockLeft >= quantity.rawValue || fault == .stockUnchecked {
                    outcome = .committed
                    stockLeft -= quantity.rawValue
                    remaining = stockLeft
                    written.append(newRow(request, .out, remaining: remaining))
                    if request.fence == 0 && fault != .directSilent { bump = true }
                } else {
                    outcome = .insufficient
                    if request.fence == product.fence && fault != .insufficientSilent { bump = true }
                    closes = request.isFirm && fault != .firmNoLeavesOpen
                }
                if closes { written.append(newRow(request, .closed, remaining: remaining)) }
                if request.fence == 0 && request.reserveSent { bump = true }
                replies[index] = CommitReply(
                    outcome: outcome,
                    lockedFence: product.fence,
                    bumped: false,
                    remaining: remaining,
                    isGated: product.isGated
                )
            }
            after.products[place].stock = stockLeft
            if bump {
                after.products[place].fence = after.products[place].fence.next
                for index in members { replies[index].bumped = true }
            }
        }
        if fault == .closedQuantityLost { Self.loseQuantities(&written) }
        for row in written where !after.insert(row) && fault != .lookupBeforeLock { throw KeyInUse() }
        self = after
        return replies
    }

    /// What `stock_increase` does. A quantity of 0 means that the caller names none.
    public mutating func increase(_ batch: [IncreaseRequest], fault: Fault? = nil) throws(KeyInUse) -> [IncreaseReply] {
        var after = self
        var replies = batch.map { _ in
            IncreaseReply(outcome: .productMissing, lockedFence: 0, bumped: false, quantity: 0, remaining: 0, isGated: false)
        }
        var written: [Row] = []
        for place in after.products.indices {
            let product = after.products[place]
            var stockLeft = product.stock
            var bump = false
            var members: [Int] = []
            for (index, request) in batch.enumerated() where request.product == product.id {
                members.append(index)
                var reply = IncreaseReply(
                    outcome: .keyReused,
                    lockedFence: product.fence,
                    bumped: false,
                    quantity: 0,
                    remaining: stockLeft,
                    isGated: product.isGated
                )
                let (decrease, own) = (row(request.decreaseKey), row(request.key))
                if let known = decrease ?? own, !Self.belongs(request, to: known, isRepeat: own != nil, fault) {
                    reply.outcome = .keyReused
                    if own == nil && fault == .wrongIncreaseOccupies { written.append(newRow(request, request.key, .closed, reply)) }
                } else if let own, !(fault == .increaseNotIdempotent && own.direction == .in) {
                    // An order id of 0 marks a change by hand.
                    if own.direction != .out && own.orderID != 0 {
                        reply.outcome = own.direction == .in ? .duplicate : .duplicateNothing
                        reply.quantity = own.direction == .in ? own.quantity : 0
                        reply.remaining = own.remaining
                        if own.direction == .in && fault != .increaseDuplicateSilent { bump = true }
                    }
                } else if let decrease, decrease.direction == .out {
                    reply.outcome = .added
                    reply.quantity = fault == .increaseTrustsQuantity ? request.quantity : decrease.quantity
                    stockLeft += reply.quantity.rawValue
                    reply.remaining = stockLeft
                    if !product.isGated && fault != .untoldSilent { bump = true }
                    written.append(newRow(request, request.key, .in, reply))
                } else {
                    reply.outcome = .nothingToReturn
                    var named = request
                    if named.quantity == 0 { named.quantity = decrease?.quantity ?? 0 }
                    written.append(newRow(named, request.key, .closed, reply))
                    if decrease == nil && fault != .compensationLeavesOpen {
                        written.append(newRow(named, request.decreaseKey, .closed, reply))
                    }
                }
                replies[index] = reply
            }
            after.products[place].stock = stockLeft
            if bump {
                after.products[place].fence = after.products[place].fence.next
                for index in members { replies[index].bumped = true }
            }
        }
        if fault == .closedQuantityLost { Self.loseQuantities(&written) }
        for row in written where !after.insert(row) && fault != .increaseNotIdempotent { throw KeyInUse() }
        self = after
        return replies
    }

    /// Whether an increase matches the row under the decrease's key, or, if there is none, the row under its own key.
    private static func belongs(_ request: IncreaseRequest, to row: Row, isRepeat: Bool, _ fault: Fault?) -> Bool {
        if isRepeat && fault == .increaseRepeatUnchecked { return true }
        if row.direction == .closed && fault == .increaseClosedUnchecked { return true }
        let isQuantityKnown = request.quantity != 0 && !(row.direction == .closed && row.quantity == 0)
        return (row.product == request.product || fault == .increaseProductUnchecked)
            && (row.orderID == request.orderID || fault == .increaseOrderUnchecked)
            && (row.quantity == request.quantity || !isQuantityKnown || fault == .increaseTrustsQuantity)
    }

    /// `stock_bump`, one product.
    public mutating func bump(_ id: ProductID) -> Resync.LedgerState? {
        guard let place = products.firstIndex(where: { $0.id == id }) else { return nil }
        products[place].fence = products[place].fence.next
        return Resync.LedgerState(fence: products[place].fence, stock: products[place].stock, isOnSale: products[place].isOnSale)
    }

    /// `stock_raise`, one product whose row is free.
    public mutating func raise(_ id: ProductID, above: Fence) -> Resync.LedgerState? {
        guard let place = products.firstIndex(where: { $0.id == id }) else { return nil }
        if above.rawValue <= 1 << 51 { products[place].fence = max(products[place].fence, above) }
        return bump(id)
    }

    /// The keys whose rows a restore of this earlier state would lose.
    public func lostKeys(restoring earlier: LedgerModel) -> [String] {
        rows.filter { earlier.row($0.key) != $0 }.map(\.key)
    }

    /// `stock_adjust`, without its reason. The quantity is signed.
    public mutating func adjust(
        _ id: ProductID,
        key: String,
        quantity: Int64,
        maximum: Int64 = .max,
        fault: Fault? = nil
    ) -> (outcome: PostgresLedger.AdjustOutcome, remaining: Int64, isGated: Bool) {
        guard let place = products.firstIndex(where: { $0.id == id }) else { return (.productMissing, 0, false) }
        let product = products[place]
        if key.hasPrefix("DEC-") || key.hasPrefix("INC-") { return (.keyReused, product.stock, product.isGated) }
        if let row = row(key) {
            let signed = row.direction == .in ? row.quantity.rawValue : -row.quantity.rawValue
            guard row.product == id, signed == quantity else { return (.keyReused, product.stock, product.isGated) }
            return (.duplicate, row.remaining, product.isGated)
        }
        guard product.stock + quantity >= 0 else { return (.belowZero, product.stock, product.isGated) }
        guard product.stock + quantity <= maximum else { return (.aboveMaximum, product.stock, product.isGated) }
        products[place].stock += quantity
        if fault != .untoldSilent { products[place].fence = products[place].fence.next }
        _ = insert(
            Row(
                key: key,
                product: id,
                direction: quantity > 0 ? .in : .out,
                quantity: Quantity(abs(quantity)),
                orderID: 0,
                fence: 0,
                token: 0,
                remaining: keepsRemaining ? product.stock + quantity : 0
            )
        )
        return (.done, product.stock + quantity, product.isGated)
    }

    /// Discontinues a product, or puts it on sale again. Raises the fence, because Redis is not told.
    public mutating func setOnSale(_ id: ProductID, _ isOnSale: Bool) {
        guard let place = products.firstIndex(where: { $0.id == id }) else { return }
        products[place].isOnSale = isOnSale
        products[place].fence = products[place].fence.next
    }

    // MARK: Rows

    private func newRow(_ request: CommitRequest, _ direction: LedgerEntry.Direction, remaining: Int64) -> Row {
        Row(
            key: request.decrease.key,
            product: request.decrease.product,
            direction: direction,
            quantity: request.decrease.quantity,
            orderID: request.decrease.orderID,
            fence: request.fence,
            token: request.token,
            remaining: keepsRemaining ? remaining : 0
        )
    }

    private func newRow(_ request: IncreaseRequest, _ key: String, _ direction: LedgerEntry.Direction, _ reply: IncreaseReply) -> Row {
        Row(
            key: key,
            product: request.product,
            direction: direction,
            quantity: direction == .in ? reply.quantity : request.quantity,
            orderID: request.orderID,
            fence: 0,
            token: 0,
            remaining: keepsRemaining ? reply.remaining : 0
        )
    }

    private static func loseQuantities(_ rows: inout [Row]) {
        for index in rows.indices where rows[index].direction == .closed { rows[index].quantity = 0 }
    }

    private mutating func insert(_ row: Row) -> Bool {
        let index = Self.index(row.key, in: rows)
        if index < rows.count, rows[index].key == row.key { return false }
        rows.insert(row, at: index)
        return true
    }

    private static func row(_ key: String, in rows: [Row]) -> Row? {
        let index = index(key, in: rows)
        return index < rows.count && rows[index].key == key ? rows[index] : nil
    }

    private static func index(_ key: String, in rows: [Row]) -> Int {
        var low = 0
        var high = rows.count
        while low < high {
            let middle = (low + high) / 2
            if rows[middle].key < key { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

extension Fence {
    /// The fence after this one. Worlds and simulations are far too small to run out of fences.
    public var next: Fence { Fence(rawValue + 1) }
}
