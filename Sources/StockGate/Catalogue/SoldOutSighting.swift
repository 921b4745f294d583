/// What this process remembers of *sold out*: the counter that it saw, for a short time.
///
/// It rejects only first attempts that want more than that. An increase on this server ends it at once; one on another server may be missed for
/// as long as the memory lasts.
struct SoldOutSighting: Sendable {
    private var counter: Int64 = 0
    private var until: UInt64 = 0
    private var generation: UInt64 = 0

    /// To be passed to `saw`: a sight from before an increase must not be remembered after it.
    var currentGeneration: UInt64 { generation }

    /// The counter, if a request for `quantity` is known to be too large at this time (nanoseconds).
    func rejects(_ quantity: Quantity, at now: UInt64) -> Int64? {
        now < until && quantity.rawValue > counter ? counter : nil
    }

    /// Redis called the product sold out, with this counter.
    mutating func saw(counter: Int64, generation: UInt64, until: UInt64) {
        guard generation == self.generation else { return }
        self.counter = counter
        self.until = until
    }

    /// Units have come, or may have come.
    mutating func end() {
        generation &+= 1
        until = 0
    }
}
