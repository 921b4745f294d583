/// One line of the table: which of our sides is compared with which peer, and the goal.
public struct Row: Sendable {
    /// What is compared.
    public enum Measure: String, Codable, Sendable {
        /// Requests a second; more is better.
        case rate
        /// Processor time of all servers for one request; less is better.
        case cpu
    }

    let title: String
    let work: Work
    let side: Side
    let clients: Int
    let peerWork: Work
    let peer: Side
    let peerClients: Int
    let measure: Measure
    /// At least this ratio of rates, at most this of processor time.
    let goal: Double?

    init(
        _ title: String,
        _ work: Work,
        _ side: Side = .stockGate,
        beside peer: Side,
        doing peerWork: Work? = nil,
        clients: Int = 128,
        peerClients: Int? = nil,
        measure: Measure = .rate,
        goal: Double? = nil
    ) {
        self.title = title
        self.work = work
        self.side = side
        self.clients = clients
        self.peerWork = peerWork ?? work
        self.peer = peer
        self.peerClients = peerClients ?? clients
        self.measure = measure
        self.goal = goal
    }

    /// The table, in its order.
    static let all: [Row] = [
        Row("whole order, confirmed", .order, beside: .gobatch, goal: 1),
        Row("whole order, confirmed", .order, beside: .go, goal: 14),
        Row("whole order, confirmed", .order, beside: .go, clients: 32),
        Row("the same, bare", .order, .plain, beside: .gobatch),
        Row("the same, through the gateway", .order, .gateway, beside: .gobatch),
        Row("the same, through the gateway", .order, .gateway, beside: .go),
        Row("the same, through the gateway", .order, .gateway, beside: .go, clients: 32),
        Row("whole order, CPU", .order, beside: .gobatch, measure: .cpu, goal: 1),
        Row("the same, through the gateway", .order, .gateway, beside: .gobatch, measure: .cpu, goal: 1.35),
        Row("durable decrease, one product", .durable, beside: .gobatch, goal: 1.25),
        Row("durable decrease, one product", .durable, beside: .go, goal: 20),
        Row("durable decrease, one product", .durable, beside: .go, clients: 32),
        Row("durable decrease, one product", .durable, beside: .nginxLuaFsync),
        Row("durable decrease, one product", .durable, beside: .tarantool),
        Row("durable decrease, one product", .durable, beside: .pgbenchUnits, peerClients: 32),
        Row("durable decrease, one product", .durable, beside: .pgbenchFunction, peerClients: 2),
        Row("durable decrease, CPU", .durable, beside: .gobatch, measure: .cpu),
        Row("the same, Redis down", .direct, beside: .pgbenchRow, peerClients: 32, goal: 20),
        Row("the same, Redis down", .direct, beside: .pgbenchRow, clients: 32),
        Row("order accepted (/v2/orders)", .accepted, beside: .go, doing: .order, goal: 18),
        Row("order accepted (/v2/orders)", .accepted, beside: .go, doing: .order, clients: 32),
        Row("the same, until CONFIRMED", .drained, beside: .go, doing: .order, goal: 8),
        Row("the same, until CONFIRMED", .drained, beside: .go, doing: .order, clients: 32),
        Row("sold-out order", .rejected, beside: .gobatch, goal: 1.2),
        Row("sold-out order", .rejected, beside: .go, goal: 12),
        Row("sold-out order", .rejected, beside: .go, clients: 32),
        Row("sold-out decrease", .soldOut, beside: .gobatch, goal: 1.4),
        Row("sold-out decrease", .soldOut, beside: .nginxLua, goal: 2),
        Row("sold-out decrease", .soldOut, beside: .nginxLua, clients: 32),
        Row("sold-out decrease", .soldOut, beside: .webdis, goal: 1.15),
        Row("sold-out decrease", .soldOut, beside: .webdis, clients: 32),
    ]
}
