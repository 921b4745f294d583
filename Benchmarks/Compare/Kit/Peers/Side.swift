/// Who does the work. The raw value is the name in tables.
public enum Side: String, Codable, Sendable, CaseIterable {
    /// The project, as its servers are configured when nobody sets anything: order events, idempotency keys, metrics.
    case stockGate = "StockGate"
    /// The project as above, through nginx.
    case gateway
    /// The project with order events off (`EVENT_LIMIT=0`) and orders without keys.
    case plain = "StockGate, bare"
    case gobatch
    case go = "Go"
    case nginxLua = "nginx+Lua"
    case nginxLuaFsync = "nginx+Lua, fsync"
    case webdis
    case tarantool = "Tarantool"
    case pgbenchRow = "pgbench, row lock"
    case pgbenchFunction = "pgbench, batches"
    case pgbenchUnits = "pgbench, unit rows"

    /// Whether this is the project itself.
    public var isOurs: Bool { self == .stockGate || self == .gateway || self == .plain }

    /// What the side is, in a line.
    public var description: String {
        switch self {
        case .stockGate: "this project, default configuration: order events, idempotency keys, metrics"
        case .gateway: "the same through its gateway (nginx)"
        case .plain: "this project with order events off (EVENT_LIMIT=0) and orders without keys"
        case .gobatch: "Go with fasthttp: group commit, batches, pipelined Redis"
        case .go: "Go, as a team would first write it: DECRBY, one transaction a decrement, one HTTP call an order"
        case .nginxLua: "nginx, Lua, a script in Redis; nothing behind it"
        case .nginxLuaFsync: "the same before a Redis with appendfsync always"
        case .webdis: "HTTP to Redis in C: GET /DECRBY/..."
        case .tarantool: "Tarantool with wal_mode = fsync, HTTP by a loop in its own Lua"
        case .pgbenchRow: "pgbench, 32 clients: lock the row, update it, insert into the ledger, commit"
        case .pgbenchFunction: "pgbench, 2 clients: the ledger's own function with arrays of 128, what PostgreSQL can do at most"
        case .pgbenchUnits: "pgbench, 32 clients: a row a unit, 1,000 rows, for update skip locked (Shopify's published scheme)"
        }
    }

    /// What the side does not promise, in few words: the table's last column. Empty where nothing is missing.
    public var lacks: String {
        switch self {
        case .stockGate, .gateway: ""
        case .plain: "events, order keys"
        case .gobatch: "breaker, resync, settlement, events, metrics, audit"
        case .go: "breaker, resync, settlement, events, metrics, audit, repeats"
        case .nginxLua: "durability, repeats, ledger, orders"
        case .nginxLuaFsync: "repeats, ledger, orders, breaker"
        case .webdis: "durability, repeats, ledger, floor at 0"
        case .tarantool: "orders, SQL, events, breaker, replica"
        case .pgbenchRow: "HTTP, gate, repeats, orders"
        case .pgbenchFunction: "HTTP, gate, orders: the ceiling alone"
        case .pgbenchUnits: "HTTP, gate, repeats, orders; quantity > 1 in one row"
        }
    }

    /// What the side does not promise, in sentences for the page.
    public var doesNotPromise: String {
        switch self {
        case .stockGate, .gateway: "-"
        case .plain: "nobody is told of an order; an order that is sent again is a second order"
        case .gobatch:
            "no breaker and no way without Redis, no resync, no settlement of unknown outcomes, no compensation, no events, no metrics, no audit; "
                + "a crash between gate and commit strands units in Redis; an order's repeat is a second order"
        case .go:
            "as gobatch; a repeated decrease is an error instead of the same answer; a crash between two statements leaves orders PENDING for good"
        case .nginxLua: "what Redis forgets is sold again; a repeat sells twice; no ledger, no orders, nothing to audit against"
        case .nginxLuaFsync: "a repeat sells twice; no ledger, no orders, no way without Redis; a counter alone says nothing of who bought"
        case .webdis: "as nginx+Lua, and the counter goes below zero: the caller must look at it"
        case .tarantool:
            "a key is remembered and its answer repeated; no orders, no events, no breaker, one process; its rows are in memory as a whole"
        case .pgbenchRow: "no HTTP, no gate before the row, no answer to a repeat, no orders: one commit a unit"
        case .pgbenchFunction: "no HTTP, no gate, no orders; batches are full from the start"
        case .pgbenchUnits: "no HTTP, no gate, no answer to a repeat, no orders; all rows locked looks like sold out"
        }
    }
}
