import ArgumentParser
import CommandShell
import FlashSaleKit

/// `flash-sale audit`.
struct AuditCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flash-sale audit",
        abstract: "Audits one product, without a sale.",
        discussion: "Waits until nothing is under way (at most --settle), then reads both databases and Redis. Exit status as for the sale."
    )

    @Option(help: "The product's id.") var product: Int64
    @Option(help: "How long to wait until no work is under way.") var settle = "10s"
    @Option(help: "The script that runs the servers. It is asked for settings that the environment lacks.") var stack: String?

    func validate() throws {
        guard product >= 1 else { throw ValidationError("--product must be an id, 1 or more, not \(product)") }
        do {
            _ = try Duration(span: settle)
        } catch {
            throw ValidationError(String(describing: error))
        }
    }

    func run() async throws {
        let source = try Environment.source(try await Environment.read(stack: Environment.script(stack)))
        let console = Console.standard(isQuiet: false)
        let bound = try Duration(span: settle)
        let product = product
        let audit = try await interruptible {
            if try await source.product(product) != nil { _ = try await Audit.settle(source, product: product, bound: bound) }
            return try await Audit.run(source, product: product, load: nil)
        }
        await source.close()
        tell(audit, console: console)
        if !audit.passes { throw ExitCode(Status.auditFailed) }
    }
}
