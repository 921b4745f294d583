// Most of a closed breaker's calls change no decision: they are let through, succeed in time, and only have to be counted. The machine says for
// how long that is so (a free period), the shell counts such calls beside it, and the machine is told of all of them before it is asked anything
// else. Its decisions are the same as if it had been asked every time.

/// A time in which the machine would let every call through, and would only count a quick success.
struct FreePeriod: Sendable, Hashable {
    /// The generation of the permits.
    let generation: UInt64
    /// Where the period begins: a call that starts earlier belongs to another one.
    let from: Int64
    /// Where the period ends: from then on the machine must be asked.
    let until: Int64
    /// The longest time that a success may take.
    let longest: Int64
    /// The bits by which a start's time is moved to get the number of its bucket.
    let shift: Int64

    /// Whether a call that starts at `now` is one of its calls.
    @inline(__always)
    func contains(_ now: Int64) -> Bool { now >= from && now < until }

    /// Whether a success at `now` is one that need only be counted.
    @inline(__always)
    func takes(_ permit: Permit, endedAt now: Int64) -> Bool {
        permit.generation == generation && contains(permit.startedAt.nanoseconds) && now < until
            && now &- permit.startedAt.nanoseconds <= longest
    }
}

/// Calls of a free period, counted.
struct FreeCalls: Sendable {
    /// As many as ``RunningCalls`` has buckets.
    static let buckets = 32

    /// By the bucket that they started in: calls started less calls ended.
    private(set) var running = InlineArray<32, Int32>(repeating: 0)
    /// Successes that were not slow.
    private(set) var succeeded: UInt64 = 0
    /// The sum of their durations.
    private(set) var nanoseconds: Int64 = 0

    @inline(__always)
    mutating func start(at now: Int64, _ period: FreePeriod) { running[Self.index(now, period)] &+= 1 }

    @inline(__always)
    mutating func succeed(startedAt start: Int64, duration: Int64, _ period: FreePeriod) {
        running[Self.index(start, period)] &-= 1
        succeeded &+= 1
        // A clock that went back counts as no time.
        nanoseconds &+= max(duration, 0)
    }

    mutating func add(_ other: FreeCalls) {
        for index in 0..<Self.buckets { running[index] &+= other.running[index] }
        succeeded &+= other.succeeded
        nanoseconds &+= other.nanoseconds
    }

    @inline(__always)
    private static func index(_ start: Int64, _ period: FreePeriod) -> Int { Int((start >> period.shift) & Int64(buckets - 1)) }
}
