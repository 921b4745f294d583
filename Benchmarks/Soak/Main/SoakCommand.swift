import ArgumentParser
import CommandShell
import FlashSaleKit
import Foundation
import SoakKit

/// `soak`.
@main
struct SoakCommand: ProgramCommand {
    static let configuration = CommandConfiguration(
        commandName: "soak",
        abstract: "Works the servers for a long time, with an outage of a store each minute: exact books, flat memory, no descriptor lost.",
        discussion: """
            Measures the peak, then sends a share of it through the gateway while Redis is killed, PostgreSQL is killed, RabbitMQ is killed and Redis is frozen, \
            one after the other. Looks at each server's memory and descriptors every second.

            Works on the stack that STACK names, which is up; scripts/soak makes one of its own and ends it.

            Flat is: the median of the last fifth of the time is at most a tenth, or 8 MiB, above the median between one and two fifths of it, and no look saw \
            more than 150 MiB. At rest a server has as many open descriptors as before the load, 8 more at most.

            Exit status: 0 all is so; 1 not so; 2 wrong usage; 130 interrupted.
            """
    )

    @Option(help: "How long orders are sent, in seconds.") var seconds = 600
    @Option(help: "The part of the peak that is sent, in percent.") var percent = 70
    @Option(help: "Seconds from one outage to the next.") var outageEvery = 60
    @Option(help: "How long the peak is measured, in seconds.") var peak = 10
    @Option(help: "Orders a second, instead of a part of the peak.") var rate: Int?
    @Option(help: "The script that owns the servers.") var stack = "scripts/stack"
    @Option(help: ArgumentHelp("Every look at the servers, as a table for a spreadsheet.", valueName: "file")) var csv: String?

    func run() async throws {
        let plan = try SoakPlan(seconds: seconds, percent: percent, outageEvery: outageEvery, peakSeconds: peak, rate: rate)
        let file = try csv.map { try OutputFile($0) }
        let script = StackScript(path: stack)
        let interruption = Interruption()
        let outcome = try await interruptible(interruption) {
            try await SoakRun(plan, stack: script) { Self.say($0) }.run(try await script.environment(), interruption: interruption)
        }
        try file?.write(Self.csv(outcome.samples))
        for line in outcome.lines { Self.say(line) }
        if outcome.sale.wasInterrupted { throw ExitCode(130) }
        for finding in outcome.findings { FileHandle.standardError.write(Data("soak: \(finding)\n".utf8)) }
        Self.say(outcome.findings.isEmpty ? "SOAK PASS" : "SOAK FAIL")
        if !outcome.findings.isEmpty { throw ExitCode(1) }
    }

    private static func say(_ line: String) { FileHandle.standardOutput.write(Data("\(line)\n".utf8)) }

    private static func csv(_ samples: [ServerSample]) -> Data {
        let rows = samples.map { "\($0.server),\($0.pid),\($0.seconds.digits(1)),\($0.memory),\($0.descriptors)" }
        return Data((["server,pid,seconds,memory_bytes,descriptors"] + rows).joined(separator: "\n").utf8) + Data("\n".utf8)
    }
}
