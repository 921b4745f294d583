public import FlashSaleKit
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import PrivateServers

/// What `redisStock` does when Redis is killed, frozen or slow: its states, its events and the books, under a small steady load.
///
/// The stack belongs to the caller, who ends it. The run starts it, because a slow Redis needs a proxy before the product server starts.
/// Bounds: every wait has a deadline; the load ends by itself.
public struct BreakerRun: Sendable {
    /// Why there is no transcript.
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// What is done.
    public struct Plan: Sendable {
        /// What happens to Redis.
        public var fault: Fault
        /// Seconds from the breaker's opening to the end of the fault.
        public var outage: Int
        /// Orders a second.
        public var rate: Int

        /// - Parameters:
        ///   - outage: seconds, 1 to 99.
        ///   - rate: orders a second, 10 to 9,999.
        public init(fault: Fault, outage: Int = 7, rate: Int = 100) throws(PlanError) {
            guard (1...99).contains(outage) else { throw PlanError("--outage is 1 to 99 seconds, not \(outage)") }
            guard (10...9_999).contains(rate) else { throw PlanError("--rate is 10 to 9999 orders a second, not \(rate)") }
            self.fault = fault
            self.outage = outage
            self.rate = rate
        }

        /// Before the fault, during it, and the breaker's way back.
        var loadSeconds: Int { outage + 18 }
    }

    private let plan: Plan
    private let stack: StackScript
    private let tell: @Sendable (String) -> Void

    /// - Parameters:
    ///   - stack: the script that owns the servers.
    ///   - tell: takes a line.
    public init(_ plan: Plan, stack: StackScript, tell: @escaping @Sendable (String) -> Void) {
        self.plan = plan
        self.stack = stack
        self.tell = tell
    }

    /// Starts the servers, makes the fault, watches the way back, and audits. Returns what was not as it should be; empty if all was.
    public func run() async throws -> [String] {
        tell("\n== stack and servers")
        let addresses = try await stack.environment()
        guard let redis = addresses["REDIS_URL"].flatMap({ URLComponents(string: $0) }), let port = redis.port else {
            throw PlanError("REDIS_URL is not set: scripts/stack env prints it")
        }
        let proxy = try await FaultProxy.start(to: port)
        let findings: [String]
        do {
            let through = plan.fault == .slow ? ["PRODUCT_REDIS_URL": "redis://127.0.0.1:\(proxy.port)"] : [:]
            _ = try await StackScript.shell("exec '\(stack.path)' start", environment: through, bound: .seconds(300))
            findings = try await story(proxy, try await stack.environment())
        } catch {
            try? await proxy.shutdown()
            throw error
        }
        try await proxy.shutdown()
        return findings
    }

    private func story(_ proxy: FaultProxy, _ environment: [String: String]) async throws -> [String] {
        let watch = try await Watch(environment, tell: tell)
        defer { watch.close() }
        var transcript = Transcript()
        try await watch.await("CLOSED", &transcript, within: .seconds(60), since: .now)

        tell("\n== load: \(plan.rate) orders a second")
        let load = Task { try await sale(environment) }
        defer { load.cancel() }
        // The breaker judges calls: it must have seen some before the fault.
        try await Task.sleep(for: .seconds(4))

        tell("\n== GET /admin/circuitbreakers/redisStock, by the time since the fault")
        transcript.forget()
        let meant = Date.now.addingTimeInterval(1)
        try await watch.await("CLOSED", &transcript, within: .seconds(5), since: meant)
        try await Task.sleep(for: .seconds(max(0, meant.timeIntervalSinceNow)))
        let fault = Date.now
        try await make(proxy)
        watch.say("fault: \(plan.fault.rawValue) Redis", since: fault)
        do {
            try await watch.await("OPEN", &transcript, within: .seconds(20), since: fault)
            try await watch.look(&transcript, for: .seconds(plan.outage), since: fault)
            try await end(proxy)
        } catch {
            // Redis comes back whatever happens, or a cancelled run would leave it stopped.
            try? await Task { try await end(proxy) }.value
            throw error
        }
        watch.say("fault ends", since: fault)
        try await watch.await("CLOSED", &transcript, within: .seconds(60), since: fault)

        tell("\n== GET /admin/circuitbreakerevents/redisStock: changes and gates since the fault")
        // The clock of the events is the server's, which is this machine's, in whole milliseconds.
        let recovery = RecoveryStory(try await watch.events(), since: fault.addingTimeInterval(-0.001))
        for line in recovery.lines(since: fault) { tell(line) }
        tell(recovery.errorLine)

        tell("\n== the books, once the load has ended")
        let audit = try await load.value.audit
        for finding in audit.findings { tell(finding) }
        tell(audit.line)
        return recovery.findings + (audit.passes ? [] : ["the audit fails"])
    }

    private func make(_ proxy: FaultProxy) async throws {
        switch plan.fault {
        case .kill: try await stack.run(["kill", "redis"])
        case .pause: try await stack.run(["pause", "redis"])
        case .slow: try await proxy.delay(toClient: .milliseconds(200))
        }
    }

    private func end(_ proxy: FaultProxy) async throws {
        switch plan.fault {
        case .kill: try await stack.run(["start", "redis"])
        case .pause: try await stack.run(["resume", "redis"])
        case .slow: try await proxy.heal()
        }
    }

    /// The load: one product, so many orders a second, audited from the stores.
    private func sale(_ environment: [String: String]) async throws -> SaleResult {
        var settings = SaleConfiguration()
        settings.units = 1_000_000
        settings.orders = plan.rate * plan.loadSeconds
        settings.arrivals = .rate(try ArrivalRate("\(plan.rate)/s"), inFlight: 1_024)
        return try await Sale.hold(settings, on: stack, environment)
    }
}

/// Looks at the breaker's endpoint some two hundred times a second.
private struct Watch: Sendable {
    private static let interval = Duration.milliseconds(5)

    private let caller: HTTPCaller
    private let tell: @Sendable (String) -> Void

    init(_ environment: [String: String], tell: @escaping @Sendable (String) -> Void) async throws {
        guard let admin = environment["PRODUCT_ADMIN_URL"] else {
            throw PlanError("PRODUCT_ADMIN_URL is not set: scripts/stack env prints it")
        }
        caller = try await HTTPCaller.make(
            endpoint: try HTTPEndpoint(admin),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            timeout: .seconds(5)
        )
        self.tell = tell
    }

    func close() { caller.close() }

    func say(_ words: String, since fault: Date) {
        tell(Transcript.line(Int((Date.now.timeIntervalSince(fault) * 1000).rounded()), words))
    }

    func events() async throws -> [BreakerHistory.Event] {
        let answer = try await caller.call(.GET, "/admin/circuitbreakerevents/redisStock")
        guard answer.status == 200 else { throw BreakerRun.Failure(description: "the breaker's events: \(answer.status)") }
        return BreakerHistory.events(json: Data(answer.body.readableBytesView))
    }

    /// Looks once, and tells a change. A look without an answer counts as none.
    private func look(_ transcript: inout Transcript, since fault: Date) async throws {
        guard let answer = try? await caller.call(.GET, "/admin/circuitbreakers/redisStock") else { return }
        let body = Data(answer.body.readableBytesView)
        guard let state = transcript.look(body) else { return }
        let moment = Date.now
        let told = state == "HALF_OPEN" ? try await events() : []
        tell(Transcript.line(Int((moment.timeIntervalSince(fault) * 1000).rounded()), Transcript.words(state, events: told)))
        tell("            " + String(decoding: body, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines))
    }

    /// Tells every change until the breaker is in this state.
    func await(_ state: String, _ transcript: inout Transcript, within bound: Duration, since fault: Date) async throws {
        let deadline = ContinuousClock.now + bound
        while transcript.state != state {
            try await look(&transcript, since: fault)
            guard ContinuousClock.now < deadline else {
                throw BreakerRun.Failure(
                    description: "the breaker is \(transcript.state ?? "unknown") and not \(state) after \(Int(bound.inSeconds)) seconds"
                )
            }
            try await Task.sleep(for: Self.interval)
        }
    }

    /// Tells every change for so long.
    func look(_ transcript: inout Transcript, for duration: Duration, since fault: Date) async throws {
        let end = ContinuousClock.now + duration
        while ContinuousClock.now < end {
            try await look(&transcript, since: fault)
            try await Task.sleep(for: Self.interval)
        }
    }
}
