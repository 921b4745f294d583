public import FlashSaleKit

/// How long the servers work, how hard, and what is taken away meanwhile.
public struct SoakPlan: Sendable {
    /// How long orders are sent, in seconds.
    public var seconds: Int
    /// The part of the measured peak that is sent.
    public var share: Double
    /// Seconds from one outage to the next.
    public var outageEvery: Int
    /// How long the peak is measured, in seconds.
    public var peakSeconds: Int
    /// Orders a second, instead of a part of the peak; nil to measure.
    public var rate: Int?

    /// - Parameters:
    ///   - seconds: 10 to 86,400.
    ///   - percent: of the peak, 1 to 100.
    ///   - outageEvery: seconds, 10 or more.
    ///   - peakSeconds: 1 to 60.
    ///   - rate: orders a second, 1 to 100,000.
    /// - Throws: `PlanError` that names the option and its range.
    public init(
        seconds: Int = 600,
        percent: Int = 70,
        outageEvery: Int = 60,
        peakSeconds: Int = 10,
        rate: Int? = nil
    ) throws(PlanError) {
        guard (10...86_400).contains(seconds) else { throw PlanError("--seconds is 10 to 86400, not \(seconds)") }
        guard (1...100).contains(percent) else { throw PlanError("--percent is 1 to 100, not \(percent)") }
        guard (10...86_400).contains(outageEvery) else { throw PlanError("--outage-every is 10 to 86400 seconds, not \(outageEvery)") }
        guard (1...60).contains(peakSeconds) else { throw PlanError("--peak is 1 to 60 seconds, not \(peakSeconds)") }
        if let rate, !(1...100_000).contains(rate) { throw PlanError("--rate is 1 to 100000 orders a second, not \(rate)") }
        self.seconds = seconds
        share = Double(percent) / 100
        self.outageEvery = outageEvery
        self.peakSeconds = peakSeconds
        self.rate = rate
    }

    /// What is done to the stores, one after the other. The servers themselves are never ended: their memory is what is looked at.
    static let outages = ["redis:kill+5s", "postgres:kill+1s", "rabbitmq:kill+1s", "redis:pause+3s"]

    /// The outages of the whole time, each a third of `outageEvery` into its part. One that would begin in the last tenth is left out: the end is for rest.
    public func disruptions() throws(PlanError) -> [Disruption] {
        var planned: [Disruption] = []
        var begins = outageEvery / 3
        while begins < seconds - seconds / 10 {
            let parts = Self.outages[planned.count % Self.outages.count].split(separator: "+")
            planned.append(try Disruption(fault: "\(parts[0])@\(begins)s+\(parts[1])"))
            begins += outageEvery
        }
        return planned
    }
}
