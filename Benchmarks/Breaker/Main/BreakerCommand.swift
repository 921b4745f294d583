public import ArgumentParser
public import BreakerKit
import CommandShell
import FlashSaleKit
import Foundation

extension Fault: ExpressibleByArgument {}

/// `breaker`.
@main
struct BreakerCommand: ProgramCommand {
    static let configuration = CommandConfiguration(
        commandName: "breaker",
        abstract: "Prints what the breaker in front of Redis does when Redis fails: its states, its events and the books.",
        discussion: """
            kill: Redis is killed, and started again empty. pause: Redis is frozen (SIGSTOP); connections stay open, nothing answers. slow: Redis answers every \
            call, but 200 ms later; a reserve has 50 ms.

            Starts the servers of the stack that STACK names; scripts/breaker makes one of its own and ends it.

            Exit status: 0 the breaker opened, closed again after its recovery, and the books agree; 1 not so; 2 wrong usage; 130 interrupted.
            """
    )

    @Argument(help: "kill, pause or slow.") var fault: Fault
    @Option(help: "The script that owns the servers.") var stack = "scripts/stack"
    @Option(help: "Seconds from the breaker's opening to the end of the fault.") var outage = 7
    @Option(help: "Orders a second.") var rate = 100

    func run() async throws {
        let plan = try BreakerRun.Plan(fault: fault, outage: outage, rate: rate)
        let findings = try await BreakerRun(plan, stack: StackScript(path: stack)) { line in
            FileHandle.standardOutput.write(Data("\(line)\n".utf8))
        }.run()
        for finding in findings { FileHandle.standardError.write(Data("breaker: \(finding)\n".utf8)) }
        if !findings.isEmpty { throw ExitCode(1) }
    }
}
