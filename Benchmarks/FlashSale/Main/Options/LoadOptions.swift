public import ArgumentParser
import FlashSaleKit
import Foundation

extension ArrivalProcess: ExpressibleByArgument {}

/// How orders are sent.
struct LoadOptions: ParsableArguments {
    @Option(help: "Orders to send at least. (default: 60,000; with --duration, --stages or --burst no bound)") var orders: Int?
    @Option(help: "Closed loop: buyers that order again as soon as they are answered. (default: 128)") var concurrency: Int?
    @Option(
        help:
            "Open loop: orders a second, such as 8000/s; latency counts from the intended moment. With --stages where the first begins (else 0)."
    )
    var rate: String?
    @Option(help: "Open loop: 10s:2000,30s:20000 goes in ten seconds to 2,000 a second, then in thirty to 20,000; 0s:500 is a step.")
    var stages: String?
    @Option(help: "Open loop: this many orders at one moment, such as 50000@12s, in addition to the rate. May be given several times.")
    var burst: [String] = []
    @Option(help: "Open loop: poisson or even. (default: poisson)") var arrivals: ArrivalProcess?
    @Option(help: "How long orders are sent, such as 60s.") var duration: String?
    @Option(
        help: """
            Open loop: how many orders may be under way. A further one waits as long as --deadline allows, then it is shed and counted. (default: 1,024)
            """
    )
    var inFlight: Int?
    @Option(
        help: "How long after its intended moment an order is still sent or repeated. Later it is shed or given up, and counted as stale."
    )
    var deadline: String?
    @Option(help: "How long one attempt of an order may take.") var timeout = "3s"
    @Option(help: "How often an order is repeated after an unclear answer.") var retries = 8
    @Option(help: "Threads that send. (default: one for each 128 orders in flight, at most the machine's cores)") var threads: Int?
    @Option(help: "The seed of arrivals, buyers and jitter. (default: from the clock; printed with an open loop)") var seed: UInt64?

    var isOpen: Bool { rate != nil || stages != nil || !burst.isEmpty }

    func fill(_ settings: inout SaleConfiguration) throws {
        try check("concurrency", concurrency ?? 128, 1...10_000)
        let inFlight = self.inFlight ?? 1_024
        try check("in-flight", inFlight, 1...20_000)
        try check("retries", retries, 0...100)
        if concurrency != nil, isOpen {
            throw PlanError("--concurrency is a closed loop, --rate, --stages and --burst an open one: choose")
        }
        // An option that changes nothing would let a reader of the report believe in it.
        if !isOpen, self.inFlight != nil || arrivals != nil {
            throw PlanError("--in-flight and --arrivals are of an open loop: give --rate, --stages or --burst")
        }
        settings.timeout = try positive(timeout, "--timeout")
        settings.retries = retries
        settings.deadline = try deadline.map { try positive($0, "--deadline") }
        settings.lasts = try duration.map { try positive($0, "--duration") }
        settings.seed = seed ?? UInt64(Date.now.timeIntervalSince1970 * 1000)
        if isOpen {
            let schedule = try ArrivalSchedule(rate: try rate.map { try ArrivalRate($0) }, stages: stages, bursts: burst)
            settings.arrivals = .schedule(schedule, arrivals ?? .poisson, inFlight: inFlight)
        } else {
            settings.arrivals = .concurrency(concurrency ?? 128)
        }
        let isBoundInTime = duration != nil || stages != nil || (!burst.isEmpty && rate == nil)
        if let orders { try check("orders", orders, 1...100_000_000) }
        settings.orders = orders ?? (isBoundInTime ? .max : 60_000)
        let cores = ProcessInfo.processInfo.activeProcessorCount
        if let threads { try check("threads", threads, 1...256) }
        settings.threads = threads ?? min(cores, max(1, (isOpen ? inFlight : concurrency ?? 128) / 128))
    }
}

func check(_ name: String, _ value: Int, _ range: ClosedRange<Int>) throws {
    guard range.contains(value) else { throw PlanError("--\(name) must be \(range.lowerBound) to \(range.upperBound), not \(value)") }
}

func positive(_ text: String, _ name: String) throws -> Duration {
    let value = try Duration(span: text)
    guard value > .zero else { throw PlanError("\(name) must be above 0") }
    return value
}
