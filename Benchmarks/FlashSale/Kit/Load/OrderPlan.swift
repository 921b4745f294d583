/// The orders to send.
public struct OrderPlan: Sendable {
    /// The hot product.
    public var product: Int64
    /// Units an order asks for.
    public var quantity: Int
    /// Buyers that orders are spread over.
    public var buyers: Int
    /// Orders to send at least.
    public var orders: Int
    /// Units on sale: for the budget.
    public var units: Int
    /// Closed or open loop.
    public var arrivals: Arrivals
    /// How long one attempt may take.
    public var timeout: Duration
    /// When an order without a clear answer is sent again.
    public var retry: RetryPolicy
    /// Chooses arrivals, buyers and jitter.
    public var seed: UInt64
    /// Makes this run's idempotency keys its own. Printable ASCII.
    public var run: String
    /// Slows a closed loop; nil never does.
    public var budget: UnitBudget?
    /// Whether orders are accepted first and decided later.
    public var isAsync = false
    /// Sent with every order.
    public var headers: [HeaderField] = []
    /// Where orders go; nil for the order server's own path behind the gateway.
    public var path: String?
    /// How long orders are sent, beside `orders`; nil for no bound in time.
    public var lasts: Duration?
    /// How old an order may become, from its intended moment: an arrival that has no place by then is shed, and an order that has no clear answer is given up
    /// rather than repeated. Nil: an arrival without a place is shed at once, and orders are repeated up to the policy's limit.
    public var deadline: Duration?

    /// Products beside the hot one.
    public var moreProducts: [Int64] = []
    /// How orders are spread over the products.
    public var spread = ProductSpread.even
    /// Units an order asks for at most, from `quantity` on, all alike; nil for always `quantity`.
    public var largestQuantity: Int?
    /// What buyers do beside ordering.
    public var habits = BuyerHabits()
    /// The gateway's path to the products, for those who look.
    public var productPath = "/product-service/products"

    /// All products, the hot one first.
    var products: [Int64] { [product] + moreProducts }

    /// Where orders go.
    var orderPath: String { path ?? (isAsync ? "/order-service/v2/orders" : "/order-service/orders") }
}
