import ArgumentParser
import AttackKit
import CommandShell
import FlashSaleKit
import Foundation

/// `attack`: sends what no careful client sends to servers that are up, and says what must not have happened.
@main
struct AttackCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attack",
        abstract: "Attacks the HTTP edge of running servers and of the gateway, and checks what must always hold.",
        discussion: """
            Four parts: framing (every row of docs/http-edge.md at every target, through the gateway each followed by six proper requests of others), access \
            (what the gateway must keep closed), fuzz (damaged and split pipelines), slow (slow, silent, many and cut connections, at servers of its own).

            The servers are those of the stack that STACK names; everything goes to loopback. Both databases are asked how often each request was carried out.

            Exit status: 0 no rule was violated; 1 a rule was violated, or the page given to --check differs from this run; 2 wrong arguments; 3 the servers cannot be used.
            """
    )

    @Option(help: "The script that runs the servers.") var stack = "scripts/stack"
    @Option(help: "The folder of product-server and order-server. (default: $STOCKGATE_BIN_DIR, else .build/release)") var binaries: String?
    @Option(name: .customLong("part"), help: "A part: framing, access, fuzz or slow. May be given several times. (default: all)") var parts:
        [String] = []
    @Option(help: "Rows of the framing table, such as 1,2,104. (default: all)") var rows: String?
    @Flag(help: "Less of everything: a minute instead of ten.") var short = false
    @Option(help: "How many damaged pipelines to send.") var damaged: Int?
    @Option(help: "The seed of the damage.") var seed: UInt64?
    @Option(help: "How many connections to cut during a request.") var resets: Int?
    @Option(help: "How many idle connections to hold open at the same time.") var idle: Int?
    @Option(help: "Write the framing table into this page, between its markers.") var markdown: String?
    @Option(help: "Check whether the table in this page equals the one of this run.") var check: String?
    @Flag(help: "Print every kind of violation, not the first 60.") var all = false

    private func plan() throws -> AttackPlan {
        var plan = short ? AttackPlan.short : AttackPlan()
        if !parts.isEmpty {
            plan.parts = Set(
                try parts.map { name in
                    guard let part = AttackPlan.Part(rawValue: name) else {
                        throw ValidationError("--part is framing, access, fuzz or slow, not \(name)")
                    }
                    return part
                }
            )
        }
        if let rows {
            plan.rows = Set(
                try rows.split(separator: ",").map { text in
                    guard let number = Int(text) else { throw ValidationError("--rows: numbers with commas between them") }
                    return number
                }
            )
        }
        plan.damaged = damaged ?? plan.damaged
        plan.seed = seed ?? plan.seed
        plan.resets = resets ?? plan.resets
        plan.idle = idle ?? plan.idle
        guard (0...1_000_000).contains(plan.damaged) else { throw ValidationError("--damaged is 0 to 1000000") }
        guard (0...1_000_000).contains(plan.resets) else { throw ValidationError("--resets is 0 to 1000000") }
        guard (1...12_000).contains(plan.idle) else { throw ValidationError("--idle is 1 to 12000") }
        return plan
    }

    func validate() throws { _ = try plan() }

    func run() async throws {
        Program.raiseDescriptorLimit()
        let report: AttackReport
        do {
            report = try await Attack(try await stand(), plan()).run { part in
                Self.say("\(part.name): \(part.cases) cases, \(part.violations.count) violations")
            }
        } catch {
            Self.say("attack: \(error)")
            throw ExitCode(3)
        }
        Self.say("")
        for line in report.findings(limit: all ? .max : 60) { Self.say(line) }
        if !report.violations.isEmpty {
            Self.say("")
            for (rule, count) in report.byRule { Self.say("\(count) x \(rule.rawValue)") }
            Self.say("")
        }
        for line in report.summary { Self.say(line) }
        var isStale = false
        if let table = report.table {
            if let markdown {
                let page = try String(contentsOfFile: markdown, encoding: .utf8)
                guard let written = table.written(into: page) else { throw ValidationError("\(markdown) has no table to replace") }
                try written.write(toFile: markdown, atomically: true, encoding: .utf8)
                Self.say("the table in \(markdown) is as it was seen")
            }
            if let check {
                let differences = table.differences(from: try String(contentsOfFile: check, encoding: .utf8))
                isStale = !differences.isEmpty
                if isStale {
                    Self.say(
                        "\(check) is stale: \(differences.count) rows are not what was seen (scripts/attack --markdown \(check) writes them):"
                    )
                    for line in differences.prefix(10) { Self.say("  \(line)") }
                }
            }
        }
        Self.say(report.violations.isEmpty ? "NOTHING WAS VIOLATED" : "VIOLATED: \(report.violations.count) times")
        if !report.violations.isEmpty || isStale { throw ExitCode(1) }
    }

    private func stand() async throws -> Stand {
        let script = StackScript(path: stack)
        let binaries = binaries ?? ProcessInfo.processInfo.environment["STOCKGATE_BIN_DIR"] ?? ".build/release"
        let path = stack
        return try Stand(environment: try await script.environment(), binaries: binaries) { isPublic in
            _ = try await StackScript.shell(
                // The servers ask for a token as long as the gateway shows one: the three change together.
                "\(path) stop gateway product order && exec \(path) start gateway product order",
                environment: ["GATEWAY_PUBLIC_STOCK": isPublic ? "true" : "false"]
            )
        }
    }

    private static func say(_ line: String) { FileHandle.standardOutput.write(Data("\(line)\n".utf8)) }
}
