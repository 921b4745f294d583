import ArgumentParser
import CommandShell
import CompareKit
import FlashSaleKit
import Foundation

/// `compare`.
@main
struct CompareCommand: ProgramCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Measures StockGate beside its peers on this machine: medians, ratios, processor time.",
        discussion: """
            The servers are those of the stack that STACK names; scripts/compare starts one and ends it. Every figure of a server is of a run whose books were \
            checked: each answer had the status it should have, and what was sold is what was answered.

            A complete run (no --only, three rounds or more) on a machine without other work is published: Benchmarks/results and the pages that \
            show them. --publish publishes whatever was measured, --no-publish nothing.

            Exit status: 0 the table was printed, whatever it says; 1 a run was wrong or a server failed; 2 wrong usage; 130 interrupted.
            """
    )

    @Option(help: "The script that owns the servers.") var stack = "scripts/stack"
    @Option(help: "The peers' files.") var files = "Benchmarks/Compare"
    @Option(help: "Where product-server and order-server are. (default: $STOCKGATE_BIN_DIR, else .build/release)") var binaries: String?
    @Option(help: "How often everything is measured.") var rounds: Int?
    @Option(help: "Seconds of one run.") var seconds: Int?
    @Flag(help: "One round of one second: shows that it works, not how fast it is.") var quick = false
    @Option(
        name: .customLong("only"),
        help:
            "Work whose name begins so, such as durable, 'order StockGate', generator or growth. May be given several times. (default: all)"
    ) var only: [String] = []
    @Flag(
        inversion: .prefixedNo,
        help:
            "At the end, kill Redis, the database and the processes under load, and count what each side lost. (default: in a run of all works)"
    ) var kills: Bool?
    @Option(help: "Write everything as JSON into this file, too.") var json: String?
    @Option(help: "The repository that is published into.") var root = "."
    @Flag(inversion: .prefixedNo, help: "Publish the result, or do not. (default: what is complete and to be relied on)") var publish: Bool?

    private var plan: PeerComparison.Plan {
        var plan = quick ? PeerComparison.Plan.quick : PeerComparison.Plan()
        plan.rounds = rounds ?? plan.rounds
        plan.duration = seconds.map { .seconds($0) } ?? plan.duration
        plan.only = only
        plan.kills = kills ?? (only.isEmpty && !quick)
        return plan
    }

    func validate() throws {
        if let problem = plan.problem { throw ValidationError(problem) }
    }

    func run() async throws {
        // Peers with hundreds of connections inherit this limit.
        Program.raiseDescriptorLimit()
        let output = try json.map { path throws(PlanError) in try OutputFile(path) }
        let binaries = binaries ?? ProcessInfo.processInfo.environment["STOCKGATE_BIN_DIR"] ?? ".build/release"
        let comparison = PeerComparison(
            plan,
            stack: StackScript(path: stack),
            files: URL(fileURLWithPath: files).path,
            binaries: URL(fileURLWithPath: binaries).path
        ) { line in Self.say(line.hasPrefix(" ") ? line : "\n== \(line)") }
        let result = try await comparison.run()
        let table = ResultTable(result)
        Self.say("\n== medians of \(result.settings.rounds) rounds of \(seconds ?? Int(plan.duration.inSeconds)) s")
        for line in table.lines { Self.say(line) }
        for line in table.relayLines + table.generatorLines { Self.say("\n\(line)") }
        Self.say(
            "\n== processor time in microseconds a request, all rounds together (load: the load generator; other: the rest of the machine)"
        )
        for line in table.cpuLines { Self.say(line) }
        if !table.lossLines.isEmpty { Self.say("\n== what each lost when something was killed under load, in units") }
        for line in table.lossLines { Self.say(line) }
        if !table.growthLines.isEmpty {
            Self.say("\n== what a request costs with more gated products, and with more servers on the same processors")
        }
        for line in table.growthLines { Self.say(line) }
        Self.say("")
        for line in table.footer { Self.say(line) }
        if let output { try output.write(try result.json()) }
        let isTrusted = !result.settings.isPartial && result.doubts.isEmpty
        if publish ?? isTrusted {
            let written = try Publication(root: URL(fileURLWithPath: root)).publish(result)
            Self.say("published: \(written.joined(separator: ", "))")
        } else {
            Self.say("not published")
        }
    }

    private static func say(_ line: String) { FileHandle.standardOutput.write(Data("\(line)\n".utf8)) }
}
