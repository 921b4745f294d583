// The probes of one half-open.
//
// Invariant: done + inFlight <= permitted, and inFlight is the number of taken slots.
// Bounds: `permitted` slots (at most 1,000), looked through once an event of half-open, never while closed.
// Stops: it is decided as soon as no remaining probe could change the answer, and at the latest when `permitted` probes are done. Each probe
// is done at the latest when its lease ends.

/// The probes that half-open lets through: which are out, how the others ended, and what follows from it.
struct Probing: Sendable {
    /// What the probes say.
    enum Verdict: Sendable, Hashable {
        case undecided
        case recovered
        case failureRate(percent: Double)
        case slowCallRate(percent: Double)
    }

    private struct Slot: Sendable {
        /// 0 while free.
        var serial: UInt64 = 0
        var startedAt: Int64 = 0
    }

    let startedAt: Int64
    let deadline: Int64
    /// When the next health check is due that serves as a probe where there is no traffic.
    var nextCheckAt: Int64
    /// The permit of the health check that is running.
    var checkPermit: Permit?
    private(set) var counts = CallCounts()
    private(set) var inFlight = 0
    private var slots: [Slot]
    private var nextSerial: UInt64 = 1

    init(permitted: Int, at now: Int64, maximumTime: Int64, nextCheckAt: Int64) {
        startedAt = now
        deadline = maximumTime == .max ? .max : now.addingClamped(maximumTime)
        self.nextCheckAt = nextCheckAt
        slots = [Slot](repeating: Slot(), count: permitted)
    }

    var remaining: Int { slots.count - counts.calls - inFlight }

    /// A slot for one more probe, or nil when all are taken or spent.
    mutating func take(generation: UInt64, at now: Int64) -> Permit? {
        guard remaining > 0, let index = slots.firstIndex(where: { $0.serial == 0 }) else { return nil }
        let serial = nextSerial
        nextSerial += 1
        slots[index] = Slot(serial: serial, startedAt: now)
        inFlight += 1
        return Permit(generation: generation, startedAt: CircuitBreakerInstant(nanoseconds: now), slot: index, serial: serial)
    }

    /// Frees the permit's slot. False when it no longer holds it: recorded before, or its lease has ended.
    mutating func giveBack(_ permit: Permit) -> Bool {
        guard slots.indices.contains(permit.slot), permit.serial != 0, slots[permit.slot].serial == permit.serial else { return false }
        slots[permit.slot].serial = 0
        inFlight -= 1
        return true
    }

    mutating func count(failed: Bool, slow: Bool) {
        counts.add(failed: failed, slow: slow)
    }

    /// Counts the probes whose lease has ended as failed and slow. Returns how many.
    mutating func endLeases(at now: Int64, lease: Int64) -> Int {
        guard inFlight > 0 else { return 0 }
        var ended = 0
        for index in slots.indices where slots[index].serial != 0 && now.subtractingClamped(slots[index].startedAt) >= lease {
            slots[index].serial = 0
            inFlight -= 1
            counts.add(failed: true, slow: true)
            ended += 1
        }
        return ended
    }

    /// When the first lease ends, nil while no probe is out.
    func firstLeaseEnd(lease: Int64) -> Int64? {
        guard inFlight > 0 else { return nil }
        return slots.lazy.filter { $0.serial != 0 }.map { $0.startedAt.addingClamped(lease) }.min()
    }

    /// Probes that are out and have been for longer than the threshold.
    func overdue(at now: Int64, threshold: Int64) -> Int {
        guard inFlight > 0 else { return 0 }
        return slots.reduce(into: 0) { if $1.serial != 0 && now.subtractingClamped($1.startedAt) > threshold { $0 += 1 } }
    }

    func verdict(overdue: Int, failureThreshold: Double, slowThreshold: Double) -> Verdict {
        let permitted = slots.count
        let failures = percent(counts.failed, of: permitted)
        if failures >= failureThreshold { return .failureRate(percent: failures) }
        let slow = percent(counts.slow + overdue, of: permitted)
        if slow >= slowThreshold { return .slowCallRate(percent: slow) }
        let open = permitted - counts.calls
        if percent(counts.failed + open, of: permitted) < failureThreshold, percent(counts.slow + open, of: permitted) < slowThreshold {
            return .recovered
        }
        return .undecided
    }
}

/// `part` of `whole` in percent.
@inline(__always)
func percent(_ part: Int, of whole: Int) -> Double { Double(part) * 100 / Double(whole) }
