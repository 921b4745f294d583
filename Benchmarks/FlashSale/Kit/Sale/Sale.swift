import Foundation
public import NIOCore
import NIOPosix

/// One sale from the first order to the audit.
///
/// The load runs on event loops of its own; beside it tasks take servers away and give them back, look at the breaker and at Redis, and tell the story.
/// Bounds: `settings.limit` for sending, 20 s more for what is under way, `settings.settle` for coming to rest.
/// Whatever was taken away is given back, also when the sale is cancelled or fails.
public struct Sale: Sendable {
    /// Why a sale could not be held at all.
    public struct Failure: Error, CustomStringConvertible {
        /// What happened.
        public let description: String
    }

    /// Somebody ended the sale before it had opened.
    public struct Interrupted: Error, CustomStringConvertible {
        /// How far the preparations were.
        public let description: String
    }

    let settings: SaleConfiguration
    let tools: FaultTools
    let basis: AuditBasis
    let console: Console
    let eventLoop: any EventLoop
    let interruption: Interruption
    let log = SaleLog()

    /// - Parameters:
    ///   - tools: make the faults; needed only with disruptions.
    ///   - basis: what the audit is taken from.
    ///   - eventLoop: where the load runs, if it has one thread.
    ///   - interruption: ends the sale early, in order.
    public init(
        settings: SaleConfiguration,
        tools: FaultTools,
        basis: AuditBasis,
        console: Console,
        eventLoop: any EventLoop,
        interruption: Interruption = Interruption()
    ) {
        self.settings = settings
        self.tools = tools
        self.basis = basis
        self.console = console
        self.eventLoop = eventLoop
        self.interruption = interruption
    }

    /// Faults by the stack script alone.
    public init(settings: SaleConfiguration, stack: StackScript?, basis: AuditBasis, console: Console, eventLoop: any EventLoop) {
        let tools = FaultTools(stack: stack, eventLoopGroup: eventLoop)
        self.init(settings: settings, tools: tools, basis: basis, console: console, eventLoop: eventLoop)
    }

    /// An audit from the stores.
    public init(settings: SaleConfiguration, stack: StackScript?, source: any AuditSource, console: Console, eventLoop: any EventLoop) {
        self.init(settings: settings, stack: stack, basis: .stores(source), console: console, eventLoop: eventLoop)
    }

    /// Holds the sale and audits it.
    /// - Throws: `Failure`, `PlanError` or what a store throws if the sale cannot be held or audited. Broken books are a result, not an error.
    public func run() async throws -> SaleResult {
        let result = try await measured()
        if let failure = result.failure { throw failure }
        return result
    }

    /// Holds the sale and audits it, as `run()` does. What fails once the sale has opened is in the result, beside everything that was measured by then.
    /// - Throws: `Failure`, `PlanError` or what a store throws if the sale cannot be opened.
    public func measured() async throws -> SaleResult {
        let gateways = try ([settings.gateway] + settings.moreGateways).map { try HTTPEndpoint($0, tls: settings.tls) }
        for gateway in gateways { try await check(gateway) }
        let gateway = gateways[0]
        let (products, units) = try await putAllOnSale(gateway)
        for product in products {
            try checkInterruption("\(products.count.grouped) products were made")
            try await look(at: product, through: gateway)
        }
        for other in gateways.dropFirst() { try await look(at: products[0], through: other) }
        for product in products {
            try checkInterruption("\(products.count.grouped) products were made")
            try await waitUntilGated(product)
        }
        let product = products[0]

        let watch = try await BreakerWatch.make(settings, eventLoop: eventLoop, log: log)
        // Threads of the sale's own, which end with it. One needs none: the load then shares a loop with the looks at the breaker.
        let group = settings.threads > 1 ? MultiThreadedEventLoopGroup(numberOfThreads: settings.threads) : nil
        defer { group?.shutdownGracefully { _ in } }
        let loops = group.map { Array($0.makeIterator()) } ?? [eventLoop]
        let load = try await Load.make(plan: plan(products: products, units: units), endpoints: gateways, eventLoops: loops)
        console.line(opening(product: product, units: units))
        var reachedLimit = false
        var failure: (any Error)?
        do {
            reachedLimit = try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { await watch.run() }
                group.addTask { try await probeStock(product) }
                group.addTask { try await show(load, product: product, units: units) }
                defer { group.cancelAll() }
                return try await hold(load, units: units)
            }
        } catch {
            // The orders that were answered by now were answered: they are told, and what they hold is audited.
            failure = error
        }
        log.addRest(try await load.look())
        let end = try await load.peek()
        // One more look, so that what the breaker did last is in the story.
        if let lastLook = try? await BreakerWatch.make(settings, eventLoop: eventLoop, log: log) { await lastLook.look(withEvents: true) }
        tellTheEnd(end, units: units)
        for line in log.linesToTell(all: true) { console.story(line.rendered) }
        var result: SaleResult
        do {
            try Task.checkCancellation()
            result = try await audited(products, units: units, end: end, reachedLimit: reachedLimit)
        } catch {
            result = unaudited(products[0], units: units, end: end, reachedLimit: reachedLimit)
            result.auditFailure = error
            result.audit.remarks = ["not audited: \(SaleResult.words(error))"]
        }
        result.saleFailure = failure
        return result
    }

    /// Waits until all is quiet, reads the books and judges them.
    private func audited(_ products: [Int64], units: Int, end: LoadGenerator.Snapshot, reachedLimit: Bool) async throws -> SaleResult {
        if settings.isAsync, case .stores(let source) = basis { try await Drain.untilSent(source, bound: settings.settle) }
        let wasInterrupted = interruption.isSet
        if wasInterrupted || products.count > 20 {
            console.story("          waiting until everything is at rest, at most \(Self.decimal(settings.settle.inSeconds)) s")
        }
        // Who interrupts now wants to wait no longer.
        let hasSettled = try await basis.settle(products, bound: settings.settle) { !wasInterrupted && interruption.isSet }
        if !hasSettled, !wasInterrupted, interruption.isSet {
            console.story("          interrupted before everything was at rest: audited as it is")
        } else if !hasSettled {
            console.story("          not at rest after \(settings.settle.inSeconds) s: audited as it is")
        }
        if let command = settings.beforeAudit {
            console.line("before the audit: \(command)")
            let output = try await StackScript.shell(command, environment: ["PRODUCT_ID": String(products[0])])
            if !output.isEmpty { console.line(output) }
        }
        try Task.checkCancellation()
        var figures = end.figures
        let audit: Audit
        switch basis {
        case .stores(let source):
            var outbox: OutboxTotals?
            if settings.isAsync {
                let drain = try await Drain.read(source, product: products[0], accepted: figures.acceptedOrders)
                outbox = try await source.outbox(of: products[0])
                figures.learn(drain)
                console.story(drained(drain))
            }
            var parts: [(product: Int64, audit: Audit)] = []
            for (place, product) in products.enumerated() {
                parts.append((product, try await Audit.run(source, product: product, load: figures, place: place, outbox: outbox)))
            }
            audit = Audit(of: parts, load: figures)
        case .http(let books):
            var parts: [(product: Int64, audit: Audit)] = []
            for (place, product) in products.enumerated() {
                parts.append((product, try await books.audit(product, load: figures, place: place)))
            }
            audit = Audit(of: parts, load: figures)
        case .none:
            audit = Audit(
                unauditedUnits: Int64(units),
                confirmedUnits: settings.isAsync ? nil : Int64(figures.unitsConfirmed - figures.unitsCancelled),
                load: figures
            )
        }
        // What could not be read because the audit was cancelled must not be held against the servers.
        try Task.checkCancellation()
        return result(products[0], figures, end, audit: audit.adding(figures), hasSettled: hasSettled, reachedLimit: reachedLimit)
    }

    /// What was measured, where the books could not be read.
    private func unaudited(_ product: Int64, units: Int, end: LoadGenerator.Snapshot, reachedLimit: Bool) -> SaleResult {
        let figures = end.figures
        // Of orders that are accepted first nobody can tell which were sold.
        let confirmed = settings.isAsync ? nil : Int64(figures.unitsConfirmed - figures.unitsCancelled)
        let audit = Audit(unauditedUnits: Int64(units), confirmedUnits: confirmed, load: figures)
        return result(product, figures, end, audit: audit.adding(figures), hasSettled: false, reachedLimit: reachedLimit)
    }

    private func result(
        _ product: Int64,
        _ figures: LoadFigures,
        _ end: LoadGenerator.Snapshot,
        audit: Audit,
        hasSettled: Bool,
        reachedLimit: Bool
    ) -> SaleResult {
        SaleResult(
            product: product,
            load: figures,
            duration: end.elapsed,
            transitions: log.transitions,
            story: log.storyLines,
            points: log.points,
            faults: log.faults,
            hasSettled: hasSettled,
            audit: audit,
            reachedLimit: reachedLimit,
            isNewProduct: settings.product == nil,
            isAsync: settings.isAsync,
            wasInterrupted: interruption.isSet,
            faultsMissed: settings.disruptions.enumerated().filter { !log.hasBegun($0.offset) }.map(\.element.words)
        )
    }

    private func plan(products: [Int64], units: Int) -> OrderPlan {
        var budget: UnitBudget?
        // An open loop keeps the rate it was given; there is nothing to budget for without an outage.
        if case .concurrency = settings.arrivals, !settings.isUnbudgeted, !settings.disruptions.isEmpty {
            budget = UnitBudget(units: units, disruptions: settings.disruptions)
        }
        return OrderPlan(
            product: products[0],
            quantity: settings.quantity,
            buyers: settings.buyers,
            orders: settings.orders,
            units: units,
            arrivals: settings.arrivals,
            timeout: settings.timeout,
            retry: RetryPolicy(limit: settings.retries),
            seed: settings.seed,
            // The time makes a run's keys its own, also with the same seed.
            run: "sale-\(products[0])-\(String(UInt64(Date.now.timeIntervalSince1970 * 1000), radix: 36))-\(settings.seed)",
            budget: budget,
            isAsync: settings.isAsync,
            headers: settings.headers,
            path: settings.orderPath,
            lasts: settings.lasts,
            deadline: settings.deadline,
            moreProducts: Array(products.dropFirst()),
            spread: settings.spread,
            largestQuantity: settings.largestQuantity,
            habits: settings.habits,
            productPath: settings.productPath
        )
    }
}
