/// What is sold, to whom, and what goes wrong meanwhile.
public struct SaleConfiguration: Sendable {
    /// Units put on sale.
    public var units = 20_000
    /// Orders to send at least. The sale goes on beyond them until every outage is over.
    public var orders = 60_000
    /// Closed or open loop.
    public var arrivals = Arrivals.concurrency(128)
    /// How long orders are sent, beside `orders`; nil for no bound in time.
    public var lasts: Duration?
    /// How old an order may become before it is shed or given up; nil for no such bound.
    public var deadline: Duration?
    /// Event loops that send orders.
    public var threads = 1
    /// How long a point of the report's lines is.
    public var interval = Duration.seconds(1)
    /// Gateways beside the first; places are spread over all.
    public var moreGateways: [String] = []
    /// Units an order asks for.
    public var quantity = 1
    /// Units an order asks for at most, from `quantity` on; nil for always `quantity`.
    public var largestQuantity: Int?
    /// Products on sale, each with `units`.
    public var products = 1
    /// How orders are spread over them.
    public var spread = ProductSpread.even
    /// What buyers do beside ordering.
    public var habits = BuyerHabits()
    /// Buyers that orders are spread over.
    public var buyers = 10_000
    /// In the order in which they begin.
    public var disruptions: [Disruption] = []
    /// An existing product instead of a new one.
    public var product: Int64?
    /// How long one attempt may take.
    public var timeout = Duration.seconds(3)
    /// Repeats after an unclear answer.
    public var retries = 8
    /// How long everything may take to come to rest after the last order.
    public var settle = Duration.seconds(60)
    /// The longest a sale may take; then no more orders are sent.
    public var limit = Duration.seconds(180)
    /// Chooses arrivals, buyers and jitter.
    public var seed: UInt64 = 1
    /// Whether orders are accepted first and decided later, over the broker.
    public var isAsync = false
    /// Whether a closed loop ignores the budget of units.
    public var isUnbudgeted = false
    /// The gateway, such as `http://127.0.0.1:8000`.
    public var gateway = "http://127.0.0.1:8000"
    /// The product server's own public port: making products is not for the gateway.
    public var productServer = "http://127.0.0.1:8081"
    /// What the product server asks its callers for there; nil if it asks for nothing.
    public var serviceToken: String?
    /// The product server's admin port.
    public var productAdmin: String? = nil
    /// Sent with every request to the gateway.
    public var headers: [HeaderField] = []
    /// What the admin port asks for; nil if it asks for nothing.
    public var adminToken: String?
    /// How the certificates of `https://` servers are judged.
    public var tls = TLSOptions()
    /// The gateway's path to the products.
    public var productPath = "/product-service/products"
    /// The gateway's path for placing orders; nil for the usual one of the kind of order.
    public var orderPath: String?
    /// Whether an existing product is read through the gateway rather than at the product server.
    public var readsProductThroughGateway = false
    /// Run between the sale and the audit, with `PRODUCT_ID` in its environment.
    public var beforeAudit: String?

    /// Three minutes, or a minute more than the sale is meant to last.
    public var usualLimit: Duration {
        let meant = [lasts, arrivals.open?.schedule.length].compactMap { $0 }.max() ?? .zero
        return max(.seconds(180), meant + .seconds(60))
    }

    /// A sale of 20,000 units without outages.
    public init() {}
}

/// Everything that came of a sale.
public struct SaleResult: Sendable {
    /// The hot product.
    public var product: Int64
    /// What the buyers saw.
    public var load: LoadFigures
    /// From the opening to the last order's end.
    public var duration: Duration
    /// What the breaker did.
    public var transitions: [BreakerTransition]
    /// The story in order.
    public var story: [Story.Line]
    /// The sale over time.
    public var points: [SalePoint]
    /// What was done to the servers.
    public var faults: [FaultSpan]
    /// Whether everything came to rest in time.
    public var hasSettled: Bool
    /// The judgement.
    public var audit: Audit
    /// Whether the sale was ended by its limit.
    public var reachedLimit: Bool
    /// Whether the product was made for this sale.
    public var isNewProduct = true
    /// Whether orders were accepted first and decided later.
    public var isAsync = false
    /// Whether somebody ended the sale early.
    public var wasInterrupted = false
    /// Faults that were asked for and never made, as they are written: the sale was over before.
    public var faultsMissed: [String] = []
    /// Why the sale ended before its time, such as a fault that could not be made.
    public var saleFailure: (any Error)?
    /// Why the books could not be read.
    public var auditFailure: (any Error)?

    /// What failed first.
    public var failure: (any Error)? { saleFailure ?? auditFailure }

    /// An error as a reader of the report is told of it.
    static func words(_ error: any Error) -> String {
        error is CancellationError ? "interrupted" : String(describing: error)
    }
}
