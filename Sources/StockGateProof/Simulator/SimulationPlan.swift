import SeededRandom
import StockGate

/// Everything that a seed decides before a run begins: who takes part, what they want, and which disasters happen when.
///
/// A shrunken plan is the same plan without some clients and disasters.
public struct SimulationPlan: Sendable {
    /// A disaster for a process, for Redis or for PostgreSQL. Times are microseconds of virtual time.
    public enum Disaster: Sendable, Hashable {
        /// A server process is killed and comes back.
        case kill(server: Int, down: Int)
        /// A server process stops for a while, perhaps for longer than the sweep's bound, and then continues.
        case pause(server: Int, length: Int)
        /// Redis restarts empty.
        case redisEmptied(down: Int)
        /// Redis restarts with the data that it had this long ago.
        case redisFromCopy(age: Int, down: Int)
        /// A replica that is behind takes over at once.
        case redisFailover(lag: Int)
        /// Redis is emptied by a command. The process and its connections stay.
        case redisFlushed
        /// Some keys of a product are lost, evicted or deleted by hand. The other keys stay.
        case redisKeysLost(product: Int, keys: [GateModel.Key])
        /// A product's slot moves to another node of Redis, with its keys or without them. For `answers` microseconds the old node goes on answering.
        case slotMoves(product: Int, keepsKeys: Bool, answers: Int)
        /// Redis answers later than its callers wait.
        case redisSlow(length: Int)
        /// PostgreSQL restarts. Uncommitted work is lost; commits that were not answered stay.
        case ledgerRestarts(down: Int)
        /// PostgreSQL is restored to what it held this long ago, from a backup or by a replica that was behind.
        case ledgerRestored(age: Int, down: Int)
        /// PostgreSQL's standby takes over, which is behind by this much. Servers find it by its timeline.
        case ledgerFailover(lag: Int, down: Int)
        /// The order database is restored to its state this many orders ago, and its sequence gives their ids out again.
        case ordersRestored(behind: Int)
        /// The sequence of order ids is set back behind so many orders that are there.
        case sequenceBehind(by: Int)
        /// Commits lose their connections, but their statements may still run.
        case ledgerLossy(length: Int)
        /// Messages are lost between all parties.
        case networkLossy(length: Int)
        /// The rows that reservations need are locked for a long time.
        case ledgerLocked(length: Int)
    }

    /// A disaster and its moment.
    public struct Strike: Sendable, Hashable {
        /// The time of the disaster, in microseconds.
        public var at: Int
        /// The disaster.
        public var what: Disaster
    }

    /// What one client does with one order.
    struct Order: Sendable {
        var at: Int
        var product: Int
        var key: String
        var orderID: Int64
        var quantity: Quantity
        /// Whether the order is sent twice at once, both times as the same attempt.
        var isDuplicated: Bool
        /// Whether the order is compensated after it was sold.
        var isCompensated: Bool
        /// Whether the order is compensated without waiting for an answer.
        var isGivenUp: Bool
        var namedQuantity: Quantity
        /// Whether somebody sends the key with other content at the same time.
        var isStolen: Bool
    }

    /// An increase under an order's key that names another order, quantity or product.
    struct WrongIncrease: Sendable {
        var at: Int
        var product: Int
        var key: String
        var orderID: Int64
        var quantity: Quantity
        /// Whether the increase is sent twice at once.
        var isDuplicated: Bool
    }

    struct HandWork: Sendable {
        enum Kind: Sendable { case adjust(Int64), discontinue, relist }
        var at: Int
        var product: Int
        var kind: Kind
    }

    /// When the disasters end and the healing begins.
    static let chaos = 12_000_000

    /// The seed.
    public let seed: UInt64
    /// The fault in the protocol, if there is one.
    public var fault: Fault?
    /// Whether no process dies and no audit runs. Then what Redis serves under PostgreSQL's fence must be exact without an audit.
    var isAuditless: Bool
    var servers: Int
    var stocks: [Int64]
    var clients: [[Order]]
    /// Increases that belong to no decrease.
    var strangers: [WrongIncrease]
    var hands: [HandWork]
    /// The disasters.
    public var strikes: [Strike]
    /// Whether orders say when they were made, so that the ledger recognises an earlier order's row by its time. If false, all rows are too young for that.
    var comparesTimes: Bool

    /// Makes the plan of a seed.
    public init(seed: UInt64, fault: Fault? = nil) {
        var random = SplitMix64(seed: seed &* 0x2545_F491_4F6C_DD1D &+ 1)
        self.seed = seed
        self.fault = fault
        isAuditless = false
        servers = random.number(1...3)
        stocks = (0..<random.number(1...2)).map { _ in Int64(random.number(1...12)) }
        var orderID: Int64 = 0
        // In some runs all orders come at once, as when a sale opens. In others they are spread.
        let window = random.happens(0.4) ? 1_500_000 : Self.chaos - 1_000_000
        clients = []
        for _ in 0..<random.number(2...10) {
            var orders: [Order] = []
            for _ in 0..<random.number(1...4) {
                orderID += 1
                let quantity = Int64(random.happens(0.8) ? 1 : random.number(2...4))
                orders.append(
                    Order(
                        at: 500_000 + random.number(0...window),
                        product: random.number(0...stocks.count - 1),
                        key: "DEC-\(orderID)",
                        orderID: orderID,
                        quantity: Quantity(quantity),
                        isDuplicated: random.happens(0.2),
                        isCompensated: random.happens(0.25),
                        isGivenUp: random.happens(0.1),
                        namedQuantity: Quantity(random.happens(0.1) ? quantity + 1 : quantity),
                        isStolen: random.happens(0.04)
                    )
                )
            }
            clients.append(orders.sorted { $0.at < $1.at })
        }
        hands = []
        for _ in 0..<(random.happens(0.5) ? random.number(1...3) : 0) {
            let at = 500_000 + random.number(0...Self.chaos - 1_000_000)
            let product = random.number(0...stocks.count - 1)
            switch random.number(0...5) {
            case 0...1: hands.append(HandWork(at: at, product: product, kind: .adjust(Int64(random.number(1...3)))))
            case 2...3: hands.append(HandWork(at: at, product: product, kind: .adjust(-Int64(random.number(1...2)))))
            case 4: hands.append(HandWork(at: at, product: product, kind: .discontinue))
            default:
                hands.append(HandWork(at: at, product: product, kind: .discontinue))
                hands.append(HandWork(at: at + random.number(1000...2_000_000), product: product, kind: .relist))
            }
        }
        strikes = []
        comparesTimes = true
        for _ in 0..<random.number(0...6) {
            let at = 300_000 + random.number(0...(random.happens(0.5) ? window : Self.chaos - 1_000_000))
            strikes.append(Strike(at: at, what: Self.disaster(&random, servers: servers)))
        }
        strikes.sort { $0.at < $1.at }
        isAuditless = random.happens(0.4)
        if isAuditless {
            strikes.removeAll { strike in if case .kill = strike.what { true } else { false } }
        }
        strangers = Self.strangers(seed: seed, clients: clients, stocks: stocks.count)
        addLosses()
        addRestores()
        addFailovers()
        addOrderRestores()
        addSequences()
        addMoves()
    }

    /// Whether the ledger's standby takes over.
    var failsOver: Bool { strikes.contains { if case .ledgerFailover = $0.what { true } else { false } } }

    /// Whether some order ids are used a second time.
    var restoresOrders: Bool { strikes.contains { if case .ordersRestored = $0.what { true } else { false } } }

    /// Chooses the strangers. The random numbers are a stream of their own, so that strangers change no other decision of a seed.
    private static func strangers(seed: UInt64, clients: [[Order]], stocks: Int) -> [WrongIncrease] {
        var random = SplitMix64(seed: seed ^ 0x5717_A46E_7A57_1CE5)
        var strangers: [WrongIncrease] = []
        for order in clients.joined() where random.happens(0.15) {
            var wrong = WrongIncrease(
                at: max(0, order.at + random.number(-200_000...2_000_000)),
                product: order.product,
                key: "INC-" + order.key.dropFirst(4),
                orderID: order.orderID,
                quantity: order.quantity,
                isDuplicated: random.happens(0.2)
            )
            switch random.number(0...2) {
            case 0 where stocks > 1: wrong.product = (order.product + 1) % stocks
            case 1: wrong.quantity = Quantity(wrong.quantity.rawValue + 1)
            default: wrong.orderID += 1000
            }
            strangers.append(wrong)
        }
        return strangers
    }

    /// Adds losses of keys, from a stream of random numbers of their own.
    private mutating func addLosses() {
        var random = SplitMix64(seed: seed ^ 0x6B65_7973_6C6F_7374)
        guard random.happens(0.25) else { return }
        for _ in 0..<random.number(1...3) {
            let keys = (0..<random.number(1...2)).map { _ in GateModel.Key.allCases[random.number(0...GateModel.Key.allCases.count - 1)] }
            let product = random.number(0...stocks.count - 1)
            strikes.append(
                Strike(at: 300_000 + random.number(0...Self.chaos - 1_000_000), what: .redisKeysLost(product: product, keys: keys))
            )
        }
        strikes.sort { $0.at < $1.at }
        // Lost reservations or owed deltas leave a wrong counter under an equal fence, which only the audit can see.
        isAuditless = false
    }

    /// Adds restores of the ledger, from a stream of random numbers of their own.
    private mutating func addRestores() {
        var random = SplitMix64(seed: seed ^ 0x7265_7374_6F72_6564)
        guard random.happens(0.15) else { return }
        for _ in 0..<random.number(1...2) {
            let restored = Disaster.ledgerRestored(
                age: random.happens(0.5) ? random.number(0...200_000) : random.number(200_000...5_000_000),
                down: random.number(0...500_000)
            )
            strikes.append(Strike(at: 300_000 + random.number(0...Self.chaos - 1_000_000), what: restored))
        }
        strikes.sort { $0.at < $1.at }
        // A restore may leave another stock under an equal fence, which only the audit can see.
        isAuditless = false
    }

    /// Adds failovers of the ledger, from a stream of random numbers of their own. No audit is needed to find them.
    private mutating func addFailovers() {
        var random = SplitMix64(seed: seed ^ 0x7072_6F6D_6F74_6564)
        guard random.happens(0.2) else { return }
        for _ in 0..<random.number(1...2) {
            let failover = Disaster.ledgerFailover(
                lag: random.happens(0.5) ? random.number(0...200_000) : random.number(200_000...3_000_000),
                down: random.number(0...500_000)
            )
            strikes.append(Strike(at: 300_000 + random.number(0...Self.chaos - 1_000_000), what: failover))
        }
        strikes.sort { $0.at < $1.at }
    }

    /// Adds restores of the order database, some of them together with the ledger's, from a stream of random numbers of their own.
    private mutating func addOrderRestores() {
        var random = SplitMix64(seed: seed ^ 0x6F72_6465_7242_61B1)
        guard random.happens(0.2) else { return }
        comparesTimes = random.happens(0.6)
        for _ in 0..<random.number(1...2) {
            let at = 400_000 + random.number(0...Self.chaos - 1_000_000)
            strikes.append(Strike(at: at, what: .ordersRestored(behind: random.number(1...6))))
            guard random.happens(0.25) else { continue }
            strikes.append(Strike(at: at, what: .ledgerRestored(age: random.number(0...2_000_000), down: random.number(0...500_000))))
            isAuditless = false
        }
        strikes.sort { $0.at < $1.at }
    }

    /// Adds sequences of order ids that fall behind their table, from a stream of random numbers of their own.
    private mutating func addSequences() {
        var random = SplitMix64(seed: seed ^ 0x7365_7175_656E_6365)
        guard random.happens(0.15) else { return }
        let at = 400_000 + random.number(0...Self.chaos - 1_000_000)
        strikes.append(Strike(at: at, what: .sequenceBehind(by: random.number(1...6))))
        strikes.sort { $0.at < $1.at }
    }

    /// Adds moves of products' slots between two nodes of Redis, from a stream of random numbers of their own.
    private mutating func addMoves() {
        var random = SplitMix64(seed: seed ^ 0x736C_6F74_6D6F_7665)
        guard random.happens(0.2) else { return }
        for _ in 0..<random.number(1...3) {
            let move = Disaster.slotMoves(
                product: random.number(0...stocks.count - 1),
                keepsKeys: random.happens(0.6),
                answers: random.happens(0.5) ? 0 : random.number(10_000...1_000_000)
            )
            strikes.append(Strike(at: 300_000 + random.number(0...Self.chaos - 1_000_000), what: move))
        }
        strikes.sort { $0.at < $1.at }
    }

    private static func disaster(_ random: inout SplitMix64, servers: Int) -> Disaster {
        let server = random.number(0...servers - 1)
        switch random.number(0...12) {
        case 0, 1: return .kill(server: server, down: random.number(10_000...2_000_000))
        case 2: return .pause(server: server, length: random.number(100_000...2_000_000))
        case 3: return .pause(server: server, length: random.number(6_000_000...9_000_000))
        case 4: return .redisEmptied(down: random.number(0...500_000))
        case 5: return .redisFromCopy(age: random.number(100_000...3_000_000), down: random.number(0...500_000))
        case 6: return .redisFailover(lag: random.number(50_000...400_000))
        case 7: return .redisFlushed
        case 8: return .redisSlow(length: random.number(300_000...2_000_000))
        case 9: return .ledgerRestarts(down: random.number(0...500_000))
        case 10: return .ledgerLossy(length: random.number(200_000...2_000_000))
        case 11: return .networkLossy(length: random.number(200_000...2_000_000))
        default: return .ledgerLocked(length: random.number(200_000...1_500_000))
        }
    }

    /// The plan in lines.
    public var lines: [String] {
        var lines = ["\(servers) servers, stocks \(stocks)\(isAuditless ? ", no audit" : "")"]
        for (index, orders) in clients.enumerated() {
            for order in orders {
                var line = "client \(index) at \(order.at): \(order.key) \(order.quantity) of product \(order.product + 1)"
                if order.isDuplicated { line += ", sent twice" }
                if order.isCompensated { line += ", compensated" }
                if order.isGivenUp { line += ", given up" }
                if order.isStolen { line += ", stolen" }
                lines.append(line)
            }
        }
        for wrong in strangers {
            lines.append(
                "stranger at \(wrong.at): \(wrong.key) of order \(wrong.orderID), \(wrong.quantity) of product \(wrong.product + 1)"
            )
        }
        for work in hands { lines.append("by hand at \(work.at): product \(work.product + 1) \(work.kind)") }
        for strike in strikes { lines.append("strike at \(strike.at): \(strike.what)") }
        return lines
    }
}
