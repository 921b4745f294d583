/// How orders are sent.
public enum Arrivals: Equatable, Sendable {
    /// Closed loop: that many buyers, each orders again as soon as it was answered.
    case concurrency(Int)
    /// Open loop at one rate: see `schedule`.
    case rate(ArrivalRate, inFlight: Int)
    /// Open loop: arrivals that do not wait for answers; latency counts from the intended moment, so a server
    /// that stalls cannot hide the buyers it kept waiting. At most `inFlight` orders are under way: an arrival beyond that waits as long as
    /// `OrderPlan.deadline` allows, which is not at all without one; then it is shed and counted.
    case schedule(ArrivalSchedule, ArrivalProcess, inFlight: Int)

    /// Orders under way at most.
    var places: Int {
        switch self {
        case .concurrency(let buyers): buyers
        case .rate(_, let inFlight), .schedule(_, _, let inFlight): inFlight
        }
    }

    /// What an open loop follows; nil for a closed one.
    var open: (schedule: ArrivalSchedule, process: ArrivalProcess)? {
        switch self {
        case .concurrency: nil
        case .rate(let rate, _): (ArrivalSchedule(rate), .poisson)
        case .schedule(let schedule, let process, _): (schedule, process)
        }
    }
}
