/// The counter that this process saw when Redis last called the product sold out, remembered for a short time.
///
/// The memory rejects only first attempts that want more than this counter. An increase on this server ends the memory at once. An increase on another server
/// may be missed for as long as the memory lasts.
struct SoldOutSighting: Sendable {
    private var counter: Int64 = 0
    private var until: UInt64 = 0
    private var generation: UInt64 = 0

    /// To be read when a reserve is sent, and passed to `saw`. A reply to a reserve from before an increase must not be remembered after it.
    var currentGeneration: UInt64 { generation }

    /// The remembered counter, if it is too small for `quantity` at this time (nanoseconds); otherwise nil.
    func rejects(_ quantity: Quantity, at now: UInt64) -> Int64? {
        now < until && quantity.rawValue > counter ? counter : nil
    }

    /// Redis called the product sold out, and this is the counter that it named.
    mutating func saw(counter: Int64, generation: UInt64, until: UInt64) {
        guard generation == self.generation else { return }
        self.counter = counter
        self.until = until
    }

    /// Ends the memory, because units have come or may have come.
    mutating func end() {
        generation &+= 1
        until = 0
    }
}
