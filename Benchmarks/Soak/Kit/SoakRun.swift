public import FlashSaleKit
import Foundation
import Synchronization

/// Servers under a steady load for a long time, with outages of their stores: the books must be exact, memory flat, every descriptor given back.
///
/// The caller owns the stack, and has started it. Bounds: every wait has a deadline; one look at the servers a second, 86,400 at most.
public struct SoakRun: Sendable {
    /// Why there is no verdict.
    public struct Failure: Error, CustomStringConvertible {
        /// What happened.
        public let description: String
    }

    /// What came of a run.
    public struct Outcome: Sendable {
        /// Orders a second that were sent.
        public var rate: Int
        /// What was sold and how, with the audit.
        public var sale: SaleResult
        /// One for each product and order server.
        public var servers: [ServerVerdict]
        /// Every look at the servers.
        public var samples: [ServerSample]
        /// What is not as it should be; empty if all is.
        public var findings: [String]
    }

    private let plan: SoakPlan
    private let stack: StackScript
    private let tell: @Sendable (String) -> Void

    /// How long descriptors may take to be given back: pools close what is idle for a while, and connections end by themselves.
    static let rest = Duration.seconds(120)

    /// - Parameters:
    ///   - stack: the script that owns the servers.
    ///   - tell: takes a line.
    public init(_ plan: SoakPlan, stack: StackScript, tell: @escaping @Sendable (String) -> Void) {
        self.plan = plan
        self.stack = stack
        self.tell = tell
    }

    /// Measures the peak, sends the load, looks at the servers, audits.
    /// - Parameter environment: what the stack's script prints for `env`.
    public func run(_ environment: [String: String], interruption: Interruption = Interruption()) async throws -> Outcome {
        guard let folder = environment["STACK_DIR"] else { throw PlanError("STACK_DIR is not set: scripts/stack env prints it") }
        let watch = try ServerWatch(folder: folder)
        let rate = try await rate(environment, interruption)
        // The peak's load is the warm-up: pools have filled, and what is idle goes now.
        let before = try await rested(watch, than: nil)
        tell("== \(rate.grouped) orders a second for \(plan.seconds) s")
        let disruptions = try plan.disruptions()
        for disruption in disruptions { tell("planned: \(disruption.words)") }
        let samples = Samples()
        let began = ContinuousClock.now
        let looks = Task { try await look(watch, since: began, into: samples) }
        defer { looks.cancel() }
        var settings = SaleConfiguration()
        settings.arrivals = .rate(try ArrivalRate("\(rate)/s"), inFlight: 2_048)
        settings.orders = .max
        settings.lasts = .seconds(plan.seconds)
        settings.limit = .seconds(plan.seconds + 120)
        settings.units = units(rate)
        settings.disruptions = disruptions
        settings.settle = .seconds(120)
        let sale = try await Sale.hold(settings, on: stack, environment, interruption: interruption)
        looks.cancel()
        // A look that failed tells of a server that is gone, which is the reason for everything else.
        if case .failure(let error) = await looks.result, !(error is CancellationError) { throw error }
        let seen = samples.all.filter { $0.seconds <= Double(plan.seconds) }
        let after = try await rested(watch, than: before)
        let servers = before.compactMap { first in
            after.first { $0.server == first.server }.map { last in
                ServerVerdict(seen.filter { $0.server == first.server }, before: first, after: last, seconds: Double(plan.seconds))
            }
        }
        var findings = servers.flatMap(\.findings)
        if !sale.audit.passes { findings += ["the audit fails"] + sale.audit.findings }
        if sale.load.phases.allSatisfy({ $0.confirmed == 0 }) { findings.append("nothing was sold") }
        if sale.faults.count < disruptions.count, !sale.wasInterrupted {
            findings.append("only \(sale.faults.count) of \(disruptions.count) outages were made")
        }
        return Outcome(rate: rate, sale: sale, servers: servers, samples: seen, findings: findings)
    }

    /// Enough for every order, and for those that are repeated.
    private func units(_ rate: Int) -> Int { min(1_000_000_000, rate * (plan.seconds + 60) * 2) }

    /// Orders a second: what was asked for, or a share of what buyers who do not wait get.
    private func rate(_ environment: [String: String], _ interruption: Interruption) async throws -> Int {
        if let rate = plan.rate { return rate }
        tell("== the peak: 64 buyers without a pause for \(plan.peakSeconds) s")
        var settings = SaleConfiguration()
        settings.arrivals = .concurrency(64)
        settings.isUnbudgeted = true
        settings.orders = .max
        settings.lasts = .seconds(plan.peakSeconds)
        settings.units = 1_000_000_000
        let peak = try await Sale.hold(settings, on: stack, environment, interruption: interruption)
        guard peak.audit.passes else {
            throw Failure(description: "the audit fails before anything was taken away: \(peak.audit.findings.joined(separator: "; "))")
        }
        let confirmed = peak.load.phases.map(\.confirmed).reduce(0, +)
        let perSecond = Double(confirmed) / max(peak.duration.inSeconds, 0.001)
        guard perSecond >= 1 else { throw Failure(description: "nothing was sold") }
        tell("\(Int(perSecond).grouped) orders confirmed a second")
        return min(100_000, max(1, Int(perSecond * plan.share)))
    }

    /// A look each second until the task is cancelled; a line each minute.
    private func look(_ watch: ServerWatch, since began: ContinuousClock.Instant, into samples: Samples) async throws {
        var next = 1
        while true {
            try await Task.sleep(until: began + .seconds(next), clock: .continuous)
            let seen = try watch.look(seconds: (ContinuousClock.now - began).inSeconds)
            samples.add(seen)
            if next % 60 == 0 {
                tell("\(next) s: " + seen.map { "\($0.server) \($0.memory.mebibytes) MiB, \($0.descriptors) fds" }.joined(separator: "; "))
            }
            next += 1
        }
    }

    /// The servers without load: looks until the descriptors are few, or, where there is nothing to compare with, until they no longer fall.
    private func rested(_ watch: ServerWatch, than first: [ServerSample]?) async throws -> [ServerSample] {
        let deadline = ContinuousClock.now + Self.rest
        var last = try watch.look(seconds: 0)
        var steady = 0
        while ContinuousClock.now < deadline {
            try await Task.sleep(for: .seconds(1))
            let seen = try watch.look(seconds: 0)
            if let first {
                let isBack = zip(first, seen).allSatisfy { $1.descriptors <= $0.descriptors + ServerVerdict.descriptorSlack }
                if isBack { return seen }
            } else {
                steady = zip(last, seen).allSatisfy { $1.descriptors >= $0.descriptors } ? steady + 1 : 0
                // Longer than the gateway and the order server keep an idle connection.
                if steady >= 5 { return seen }
            }
            last = seen
        }
        return last
    }
}

/// What the looks have seen so far: one task adds, another reads when it is over.
private final class Samples: Sendable {
    private let seen = Mutex<[ServerSample]>([])

    var all: [ServerSample] { seen.withLock { $0 } }

    func add(_ samples: [ServerSample]) { seen.withLock { $0 += samples } }
}

extension SoakRun.Outcome {
    /// The table and the audit's line.
    public var lines: [String] {
        let load = sale.load
        let confirmed = load.phases.map(\.confirmed).reduce(0, +)
        let errors = load.phases.map(\.errors).reduce(0, +)
        return [
            "\(load.sent.grouped) orders sent in \(Int(sale.duration.inSeconds)) s, \(confirmed.grouped) confirmed, \(load.shed.grouped) shed, "
                + "\(errors.grouped) without a clear answer; \(sale.faults.count) outages"
        ] + SaleReport.aligned([ServerVerdict.head] + servers.map(\.cells)) + [sale.audit.line]
    }
}
