import ArgumentParser
import CommandShell
import FlashSaleKit
import Foundation
import NIOCore
import NIOPosix

/// `flash-sale`: the sale.
struct SaleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flash-sale",
        abstract: "Sells a hot product out under load, takes servers away meanwhile, and audits the books.",
        discussion: """
            Buyers order one product through the gateway, each order under an Idempotency-Key of its own; an order without a clear answer is sent again \
            under the same key. The audit that follows reads both databases and Redis itself: the servers are not asked, because their own answers would prove less.

            Outages: START..END or START+LENGTH, each moment as time since the opening (4s) or as part of the units sold (30%): --outage 4s..9s, \
            --outage 30%+5s, --outage 25%..60%. The sale goes on at least until every outage is over and the breaker is CLOSED again. \
            So that there are units left to sell by then, a sale at the machine's own pace keeps a share of them for each part of the story \
            and slows its buyers when a share runs low (see --unbudgeted); the report tells the pace of the unslowed part apart.

            Settings from the environment, or from what `STACK env` prints: GATEWAY_URL (or GATEWAY_PORT), PRODUCT_SERVER_URL (the first of \
            them makes the product; PRODUCT_SERVICE_TOKEN is shown to it), PRODUCT_ADMIN_URL (ADMIN_TOKEN is shown to it), PRODUCT_DATABASE_URL, \
            ORDER_DATABASE_URL, REDIS_URL.

            Against any other gateway: --gateway https://shop.example --product 7 --no-audit, with --header for what it asks for.

            \(Status.help)

            `flash-sale audit --product ID` audits one product without a sale; `flash-sale compare A.json B.json` compares two reports; see their --help.
            """
    )

    @OptionGroup(title: "SALE") var shape: ShapeOptions
    @Option(help: "How long to wait before the audit until no work is under way.") var settle = "60s"
    @Option(help: "How long the sale may take at most. (default: 180s, or a minute more than --duration or --stages)") var limit: String?
    @Option(
        help:
            "A command to run between the sale and the audit, with PRODUCT_ID in its environment. It can break the ledger, to show that the audit finds that."
    )
    var beforeAudit: String?
    @OptionGroup(title: "LOAD") var load: LoadOptions
    @OptionGroup(title: "WHERE") var target: TargetOptions
    @OptionGroup(title: "FAULTS") var faults: FaultOptions
    @OptionGroup(title: "RESULTS") var output: OutputOptions

    func validate() throws {
        do {
            _ = try settings(environment: [:])
        } catch {
            throw ValidationError(String(describing: error))
        }
    }

    /// The settings that the arguments name. An environment is needed only for the addresses.
    private func settings(environment: [String: String]) throws -> SaleConfiguration {
        var settings = SaleConfiguration()
        try shape.fill(&settings)
        settings.settle = try Duration(span: settle)
        settings.beforeAudit = beforeAudit
        try load.fill(&settings)
        settings.limit = try limit.map { try positive($0, "--limit") } ?? settings.usualLimit
        try faults.fill(&settings)
        try output.fill(&settings)
        try target.fill(&settings, environment: environment)
        return settings
    }

    func run() async throws {
        let script = try Environment.script(target.stack)
        let environment = try await Environment.read(stack: script)
        let settings = try settings(environment: environment)
        let outputs = try output.open()
        let console = Console.standard(isQuiet: output.quiet, onStandardError: outputs.isJSONOnStandardOutput)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let (basis, reader) = try target.basis(settings, environment: environment, eventLoop: eventLoop)
        let tools = try faults.tools(stack: script, environment: environment)
        var runs: [SaleReport] = []
        for number in 1...output.repeat {
            if output.repeat > 1 { console.line("== run \(number) of \(output.repeat)") }
            var chosen = settings
            // Another run of the same seed would ask nothing new of the servers.
            chosen.seed = settings.seed &+ UInt64(number - 1)
            let report = try await hold(chosen, tools: tools, basis: basis, console: console, eventLoop: eventLoop)
            try outputs.write(report, isFirst: number == 1)
            if let page = outputs.html { console.line("report: \(page.path)") }
            tell(report.audit, console: console)
            runs.append(report)
            if report.wasInterrupted { break }
        }
        await reader?.close()
        try outputs.write(json: runs.count == 1 ? runs[0].json() : SaleReport.json(of: runs))
        if runs.count > 1 { for line in SaleReport.medians(of: runs) { console.line(line) } }
        try conclude(runs, console: console)
    }

    private func hold(
        _ settings: SaleConfiguration,
        tools: FaultTools,
        basis: AuditBasis,
        console: Console,
        eventLoop: any EventLoop
    ) async throws -> SaleReport {
        let started = Date.now
        let interruption = Interruption()
        let sale = Sale(settings: settings, tools: tools, basis: basis, console: console, eventLoop: eventLoop, interruption: interruption)
        let result = try await interruptible(interruption) { try await sale.run() }
        let report = SaleReport(
            result,
            percentiles: try SaleReport.percentiles(output.percentiles),
            requirements: try output.requirements(),
            metadata: RunMetadata.json(settings, audit: basis.name, started: started)
        )
        console.line("")
        for line in report.table { console.line(line) }
        return report
    }

    /// Ends with the status of the worst that happened.
    private func conclude(_ runs: [SaleReport], console: Console) throws {
        if runs.contains(where: \.wasInterrupted) { throw ExitCode(Status.interrupted) }
        if runs.contains(where: { !$0.passes }) { throw ExitCode(Status.auditFailed) }
        // A sale in which nothing was sold has failed, even though its books agree.
        if runs.contains(where: { $0.hasSoldNothing }) {
            console.line("no order was confirmed: the servers sold nothing")
            throw ExitCode(Status.unavailable)
        }
        if let missed = runs.lazy.compactMap(\.firstMissed).first { throw ExitCode(Status.missed(missed)) }
    }
}
