/// Where an order is in its life: `PENDING -> CONFIRMED | FAILED`, `CONFIRMED -> CANCELLED`.
package enum OrderStatus: String, Sendable, CaseIterable {
    /// Its saga runs, or waits for recovery.
    case pending = "PENDING"
    /// Its stock is taken.
    case confirmed = "CONFIRMED"
    /// It holds no stock; the reason is an error code.
    case failed = "FAILED"
    /// It was confirmed, and its stock was given back.
    case cancelled = "CANCELLED"
}
