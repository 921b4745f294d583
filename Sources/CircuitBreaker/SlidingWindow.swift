// Invariant: `counts` is the sum of what the ring holds, and 0 <= slowFailed <= min(failed, slow) <= max(failed, slow) <= calls.
// Bounds: one byte a call (count-based) or 32 bytes a second (time-based), all of it taken when the window is made.
// A record costs the same whatever the size; a time-based window that was idle clears at most its own number of buckets.

/// How many calls ended, and how.
struct CallCounts: Sendable, Hashable {
    var calls = 0
    var failed = 0
    var slow = 0
    var slowFailed = 0

    @inline(__always)
    mutating func add(failed isFailed: Bool, slow isSlow: Bool) {
        calls &+= 1
        failed &+= isFailed ? 1 : 0
        slow &+= isSlow ? 1 : 0
        slowFailed &+= isFailed && isSlow ? 1 : 0
    }

    mutating func subtract(_ other: CallCounts) {
        calls -= other.calls
        failed -= other.failed
        slow -= other.slow
        slowFailed -= other.slowFailed
    }
}

/// The outcomes of the last calls, by number or by time.
struct SlidingWindow: Sendable {
    private static let bucketWidth: Int64 = 1_000_000_000

    private(set) var counts = CallCounts()
    /// Count-based: one byte a call, bit 0 failed, bit 1 slow. Empty when time-based.
    private var outcomes: [UInt8]
    /// Time-based: one bucket a second. Empty when count-based.
    private var buckets: [CallCounts]
    /// The slot written next (count-based) or the present bucket (time-based).
    private var head = 0
    /// When the present bucket ends; never, when count-based.
    private var bucketEnd: Int64

    init(_ window: CircuitBreakerConfiguration.Window, at now: Int64) {
        switch window {
        case .count(let size):
            outcomes = [UInt8](repeating: 0, count: size)
            buckets = []
            bucketEnd = .max
        case .time(let seconds):
            outcomes = []
            buckets = [CallCounts](repeating: CallCounts(), count: seconds)
            bucketEnd = now.addingClamped(Self.bucketWidth)
        }
    }

    /// Forgets all calls. Keeps its memory.
    mutating func reset(at now: Int64) {
        counts = CallCounts()
        head = 0
        if buckets.isEmpty { return }
        for index in buckets.indices { buckets[index] = CallCounts() }
        bucketEnd = now.addingClamped(Self.bucketWidth)
    }

    /// Lets go of the buckets that have left the window. Does nothing when count-based.
    @inline(__always)
    mutating func advance(to now: Int64) {
        if now >= bucketEnd { turn(to: now) }
    }

    @inline(never)
    private mutating func turn(to now: Int64) {
        // A count-based window has no buckets. Its end is the largest time there is, which a clock at the end of time would reach.
        if buckets.isEmpty { return }
        let steps = (now - bucketEnd) / Self.bucketWidth + 1
        for _ in 0..<min(steps, Int64(buckets.count)) {
            head = head + 1 == buckets.count ? 0 : head + 1
            counts.subtract(buckets[head])
            buckets[head] = CallCounts()
        }
        bucketEnd = bucketEnd.addingClamped(steps * Self.bucketWidth)
    }

    @inline(__always)
    mutating func record(failed: Bool, slow: Bool, at now: Int64) {
        if outcomes.isEmpty {
            advance(to: now)
            buckets[head].add(failed: failed, slow: slow)
        } else {
            // A byte that is written over is taken out of the figures only when the ring is full: before that it holds no call.
            if counts.calls == outcomes.count {
                let old = outcomes[head]
                counts.calls &-= 1
                counts.failed &-= Int(old & 1)
                counts.slow &-= Int(old >> 1)
                counts.slowFailed &-= old == 3 ? 1 : 0
            }
            outcomes[head] = (failed ? 1 : 0) | (slow ? 2 : 0)
            head = head &+ 1 == outcomes.count ? 0 : head &+ 1
        }
        counts.add(failed: failed, slow: slow)
    }

    /// When the figures change by themselves.
    var changesAt: Int64 { bucketEnd }

    /// Records successes that were not slow, before ``changesAt``.
    mutating func recordSuccesses(_ count: UInt64) {
        if outcomes.isEmpty {
            let calls = Int(clamping: count)
            buckets[head].calls &+= calls
            counts.calls &+= calls
            return
        }
        // More successes than the ring has places have the same effect as one for each place.
        let calls = Int(clamping: min(count, UInt64(outcomes.count)))
        guard counts.failed == 0, counts.slow == 0 else {
            for _ in 0..<calls { record(failed: false, slow: false, at: .min) }
            return
        }
        // No failed or slow call is pushed out, since there is none. From the head on there may be bytes from before a reset; in front of it there are
        // successes.
        for index in head..<min(head + calls, outcomes.count) { outcomes[index] = 0 }
        head = (head + calls) % outcomes.count
        counts.calls = min(counts.calls + calls, outcomes.count)
    }

    /// The figures as they are at `now`, without changing anything.
    func counts(at now: Int64) -> CallCounts {
        guard now >= bucketEnd else { return counts }
        var copy = self
        copy.advance(to: now)
        return copy.counts
    }
}
