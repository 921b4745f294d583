// The phases of the breaker, and what each of them holds.

extension CircuitBreakerMachine {
    /// Which part of which state the breaker is in.
    enum Phase: Sendable {
        /// To `open`; by hand to all.
        case closed(Ramp)
        /// To `recovering` where there is a recovery, to `probing` where there is none; by hand to all.
        case open(Open)
        /// HALF_OPEN while the recovery runs. To `probing` or `closed` when it passes, to `open` when it does not; by hand to all.
        case recovering(Recovery)
        /// HALF_OPEN with probes. To `closed` or `open`; by hand to all.
        case probing(Probing)
        /// By hand to all.
        case disabled
        /// By hand to all.
        case forcedOpen
        /// By hand to all.
        case metricsOnly(Crossing)
    }

    struct Ramp: Sendable {
        /// Nil when the whole traffic passes.
        var startedAt: Int64?
        /// The part of a call that is owed: grows by the share with every call, and a call passes when it reaches one.
        var credit = 0.0
    }

    struct Open: Sendable {
        let until: Int64
        var nextCheckAt: Int64
        var isChecking = false
    }

    struct Recovery: Sendable {
        let startedAt: Int64
        /// Close when it passes, without probes.
        var closesDirectly: Bool
    }

    /// Which thresholds the rates have reached. A threshold that is reached is told once, until the rate has been below it.
    struct Crossing: Sendable {
        var failureRate = false
        var slowCallRate = false
    }
}
