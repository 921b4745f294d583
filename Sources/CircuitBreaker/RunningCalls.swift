// Which calls have been running for too long, without an entry for each call: calls are counted by the time they started in.
//
// A call is young until it has run longer than the threshold, then overdue until its lease ends, then forgotten, since a permit that never comes back would
// otherwise count for ever. Young calls are counted in buckets of at most an eighth of the threshold, overdue ones in buckets of at most
// an eighth of the lease, so a call turns overdue, or is forgotten, at most one bucket late and never early. Widths are powers of two, so
// that finding a bucket is a shift.
//
// Invariant: `overdue` is the sum of the overdue buckets; each call added and not yet removed or forgotten is in exactly one bucket.
// Bounds: 32 buckets of each kind, whatever the number of calls. At most 17 are in use at a time: (span >> shift) + 1.

/// Counts the running calls, and those of them that have been running for too long.
struct RunningCalls: Sendable {
    private static let mask = Int64(FreeCalls.buckets - 1)

    let isCounting: Bool
    private let threshold: Int64
    private let lease: Int64
    let youngShift: Int64
    private let overdueShift: Int64
    /// Below zero where a call was ended twice.
    private var young: [Int32]
    private var aged: [UInt32]
    /// The number of the first young bucket that may hold a call; all before it are overdue.
    private var youngHead = Int64.min
    /// The number of the first overdue bucket that may hold a call; all before it are forgotten.
    private var agedHead = Int64.min
    /// Calls that are running and have been for longer than the threshold.
    private(set) var overdue = 0

    init(isCounting: Bool, threshold: Int64, lease: Int64) {
        // If the lease ends before the threshold, no call can be overdue, and nothing is counted.
        self.isCounting = isCounting && lease > threshold
        self.threshold = threshold
        self.lease = lease
        youngShift = Self.shift(for: threshold)
        overdueShift = max(Self.shift(for: lease), youngShift)
        young = [Int32](repeating: 0, count: Int(Self.mask) + 1)
        aged = [UInt32](repeating: 0, count: Int(Self.mask) + 1)
    }

    /// The largest power of two that is at most an eighth of the span.
    private static func shift(for span: Int64) -> Int64 { Int64(63 - max(span / 8, 1).leadingZeroBitCount) }

    mutating func reset() {
        overdue = 0
        for index in young.indices { young[index] = 0 }
        for index in aged.indices { aged[index] = 0 }
        youngHead = .min
        agedHead = .min
    }

    /// Lets calls become overdue and be forgotten. Returns whether more calls are overdue than before.
    @inline(__always)
    mutating func advance(to now: Int64) -> Bool {
        guard isCounting, (now &- threshold) >> youngShift > youngHead else { return false }
        return age(to: now)
    }

    @inline(never)
    private mutating func age(to now: Int64) -> Bool {
        let before = overdue
        // Bucket b ends at (b + 1) << shift: all in it are older than the span when that is at or before now - span.
        let firstYoung = (now &- threshold) >> youngShift
        let first = max(youngHead, firstYoung &- Self.mask &- 1)
        youngHead = firstYoung
        var bucket = first
        while bucket < firstYoung {
            let index = Int(bucket & Self.mask)
            let calls = young[index]
            young[index] = 0
            if calls > 0 {
                addAged(startedAt: bucket << youngShift, calls: UInt32(calls))
            }
            bucket += 1
        }
        let firstAged = (now &- lease) >> overdueShift
        bucket = max(agedHead, firstAged &- Self.mask &- 1)
        while bucket < firstAged {
            let index = Int(bucket & Self.mask)
            overdue -= Int(aged[index])
            aged[index] = 0
            bucket += 1
        }
        agedHead = max(agedHead, firstAged)
        return overdue > before
    }

    private mutating func addAged(startedAt start: Int64, calls: UInt32) {
        let bucket = start >> overdueShift
        guard bucket >= agedHead else { return }
        aged[Int(bucket & Self.mask)] += calls
        overdue += Int(calls)
    }

    /// A call has started.
    @inline(__always)
    mutating func add(startedAt start: Int64) {
        guard isCounting else { return }
        let bucket = start >> youngShift
        if bucket >= youngHead {
            young[Int(bucket & Self.mask)] &+= 1
        } else {
            // The clock was read before the lock was taken, and much time went by in between.
            addAged(startedAt: start, calls: 1)
        }
    }

    /// The span in which no running call becomes overdue or is forgotten, so that calls can be counted by bucket outside (``FreeCalls``) and added later. Nil
    /// before the first look at the time, and where a bucket is shorter than 2^20 ns: opening and closing a span would cost more than its calls.
    var period: Range<Int64>? {
        guard isCounting else { return .min..<(.max) }
        guard youngHead > .min, youngShift >= 20 else { return nil }
        return (youngHead << youngShift)..<(((youngHead &+ 1) << youngShift).addingClamped(threshold))
    }

    /// Calls have started and ended within ``period``.
    mutating func add(_ calls: FreeCalls) {
        guard isCounting else { return }
        for index in young.indices { young[index] &+= calls.running[index] }
    }

    /// A call has ended.
    @inline(__always)
    mutating func remove(startedAt start: Int64) {
        guard isCounting else { return }
        let bucket = start >> youngShift
        if bucket >= youngHead {
            let index = Int(bucket & Self.mask)
            if young[index] > 0 { young[index] &-= 1 }
        } else {
            removeAged(startedAt: (bucket << youngShift) >> overdueShift)
        }
    }

    @inline(never)
    private mutating func removeAged(startedAt bucket: Int64) {
        guard bucket >= agedHead else { return }
        let index = Int(bucket & Self.mask)
        guard aged[index] > 0 else { return }
        aged[index] -= 1
        overdue -= 1
    }

    /// How many calls are overdue at `now`, without changing anything.
    func overdue(at now: Int64) -> Int {
        var copy = self
        _ = copy.advance(to: now)
        return copy.overdue
    }
}
