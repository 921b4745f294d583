// Where the calls of a free period are counted: a stripe for each thread, on cache lines of its own, behind a lock of its own, so that threads that
// make calls at the same time do not wait for each other. Threads that share a stripe do wait for each other.
//
// Invariants
// - A stripe holds a period only between `begin` and `end`, and `end` takes the period and the calls in one step: a call is either in what `end` returns, or
// its thread is told that it was not counted.
// - Only a stripe that a thread has asked for holds a period, so that `end` takes as many locks as there are threads that make calls, and not sixteen.
// - Lock order: the machine's lock, then a stripe's. `begin`, `end`, `activate` and `sum` are called with the machine's lock held.
// Bounds: 16 stripes, 6 KiB.

import Synchronization

struct Stripes: ~Copyable, Sendable {
    private static let count = 16

    private struct Content: Sendable {
        var period: FreePeriod?
        var calls = FreeCalls()
    }

    private struct Stripe: ~Copyable {
        let content = Guarded(Content())
        // Two cache lines: the processor fetches them in pairs.
        private let padding = InlineArray<16, UInt64>(repeating: 0)
    }

    // Written by `init` and `deinit` alone, which nothing that borrows this outlives; what it points to is locked.
    private nonisolated(unsafe) let stripes: UnsafeMutablePointer<Stripe>
    /// A bit for each stripe that some thread has asked for.
    private let active = Atomic<UInt32>(0)

    init() {
        stripes = .allocate(capacity: Self.count)
        for index in 0..<Self.count { (stripes + index).initialize(to: Stripe()) }
    }

    deinit {
        stripes.deinitialize(count: Self.count)
        stripes.deallocate()
    }

    /// The calling thread's stripe, by where its stack is. Stacks lie some mebibytes apart; the factor spreads equal distances. Ask once for each call of the
    /// breaker: the answer may change within one, where its stack crosses a mebibyte.
    @inline(__always)
    static var mine: Int {
        var here: UInt8 = 0
        let address = withUnsafeMutablePointer(to: &here) { UInt64(UInt(bitPattern: $0)) }
        return Int(truncatingIfNeeded: ((address >> 20) &* 0x9E37_79B9_7F4A_7C15) >> 60)
    }

    // MARK: Without the machine's lock

    /// Counts a call that starts at `now`. Nil when `now` is outside a free period: then the machine has to be asked.
    @inline(__always)
    borrowing func start(at now: Int64, in stripe: Int) -> Permit? {
        var permit: Permit?
        stripes[stripe].content.withLockSpinningFirst { content in
            guard let period = content.period, period.contains(now) else { return }
            content.calls.start(at: now, period)
            permit = Permit(generation: period.generation, at: now)
        }
        return permit
    }

    /// Counts a success at `now`. False when it belongs to no free period: then the machine has to be told.
    @inline(__always)
    borrowing func succeed(_ permit: Permit, at now: Int64, in stripe: Int) -> Bool {
        var isCounted = false
        stripes[stripe].content.withLockSpinningFirst { content in
            guard let period = content.period, period.takes(permit, endedAt: now) else { return }
            let start = permit.startedAt.nanoseconds
            content.calls.succeed(startedAt: start, duration: now &- start, period)
            isCounted = true
        }
        return isCounted
    }

    // MARK: With the machine's lock

    /// Lets a thread's stripe take part from the next `begin` on.
    borrowing func activate(_ stripe: Int) {
        active.store(active.load(ordering: .relaxed) | 1 << UInt32(stripe), ordering: .relaxed)
    }

    borrowing func begin(_ period: FreePeriod) {
        forEachActive { $0.period = period }
    }

    /// Ends the period. Returns the calls counted in it.
    borrowing func end() -> FreeCalls {
        var sum = FreeCalls()
        forEachActive { content in
            guard content.period != nil else { return }
            sum.add(content.calls)
            content = Content()
        }
        return sum
    }

    /// The calls counted in the present period up to now.
    borrowing func sum() -> FreeCalls {
        var sum = FreeCalls()
        forEachActive { sum.add($0.calls) }
        return sum
    }

    @inline(__always)
    private borrowing func forEachActive(_ body: (inout Content) -> Void) {
        var rest = active.load(ordering: .relaxed)
        while rest != 0 {
            stripes[rest.trailingZeroBitCount].content.withLockSpinningFirst { body(&$0) }
            rest &= rest - 1
        }
    }
}
