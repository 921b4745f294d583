import ArgumentParser
import CommandShell
import FlashSaleKit
import Foundation
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
        let console = Console.standard(isQuiet: output.quiet, onStandardError: outputs.isStandardOutputTaken)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let (basis, reader) = try target.basis(settings, environment: environment, eventLoop: eventLoop)
        let series = SaleSeries(
            settings: settings,
            tools: try faults.tools(stack: script, environment: environment),
            basis: basis,
            console: console,
            eventLoop: eventLoop,
            count: output.repeat,
            percentiles: try SaleReport.percentiles(output.percentiles),
            requirements: try output.requirements(),
            outputs: outputs
        )
        let interruption = Interruption()
        try await interruptible(interruption) {
            let status: Int32
            do {
                status = try await series.hold(interruption)
            } catch {
                await reader?.close()
                throw error
            }
            await reader?.close()
            if status != Status.pass { throw ExitCode(status) }
        }
    }
}
