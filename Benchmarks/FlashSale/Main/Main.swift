import ArgumentParser
import FlashSaleKit
import Foundation

/// `flash-sale`.
@main
enum Main {
    static func main() async {
        // When the reader of the output has gone away, writing fails with an error instead of ending the process.
        signal(SIGPIPE, SIG_IGN)
        var command: any ParsableCommand.Type = SaleCommand.self
        do {
            // Told apart by hand: as a subcommand, `audit --product 7` would have its option taken by the sale's of the same name.
            let arguments = CommandLine.arguments.dropFirst()
            switch arguments.first {
            case "audit":
                command = AuditCommand.self
                let audit = try AuditCommand.parse(Array(arguments.dropFirst()))
                try await audit.run()
            case "compare":
                command = CompareCommand.self
                try CompareCommand.parse(Array(arguments.dropFirst())).run()
            default:
                let sale = try SaleCommand.parse(Array(arguments))
                try await sale.run()
            }
        } catch let error as ExitCode {
            exit(error.rawValue)
        } catch let error as PlanError {
            fail(error.description, status: Status.usage)
        } catch let error as Sale.Interrupted {
            fail(error.description, status: Status.interrupted)
        } catch {
            // Help and version come here too, with status 0.
            let code = command.exitCode(for: error)
            if code == .validationFailure { fail(command.fullMessage(for: error), status: Status.usage, prefix: false) }
            if code == .success {
                print(command.fullMessage(for: error))
                exit(Status.pass)
            }
            fail(String(describing: error), status: Status.unavailable)
        }
    }

    private static func fail(_ message: String, status: Int32, prefix: Bool = true) -> Never {
        FileHandle.standardError.write(Data(((prefix ? "flash-sale: " : "") + message + "\n").utf8))
        exit(status)
    }
}

/// Prints what the audit found, and its line last.
func tell(_ audit: Audit, console: Console) {
    for remark in audit.remarks { console.line(remark) }
    for finding in audit.findings { console.line(finding) }
    console.line(audit.line)
}
