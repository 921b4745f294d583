import AttackKit
import Foundation
import Testing

/// The short form of `make attack`: real servers behind a real gateway, sent what no careful client sends. docs/http-edge.md says what must hold.
@Suite(
    "The HTTP edge under attack",
    .serialized,
    .stackWithBroker(instances: 1, ["GATEWAY_PUBLIC_STOCK": "true"]),
    .timeLimit(.minutes(20))
)
struct EdgeUnderAttack {
    @discardableResult
    private func attack(_ part: AttackPlan.Part) async throws -> AttackReport {
        let stack = try Stack.current
        var plan = AttackPlan.short
        plan.parts = [part]
        // A debug build on a busy machine: bounds of time are looked at closely by `make attack`.
        plan.slack = .seconds(5)
        let binaries =
            ProcessInfo.processInfo.environment["STOCKGATE_BIN_DIR"]
            ?? URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path
        let stand = try Stand(environment: try await stack.addresses().values, binaries: binaries) { isPublic in
            // The servers ask for a token as long as the gateway shows one: the three change together.
            let other = stack.with(["GATEWAY_PUBLIC_STOCK": isPublic ? "true" : "false"])
            _ = try await stack.run("stop gateway product order")
            _ = try await other.run("start gateway product order")
        }
        let report = try await Attack(stand, plan).run()
        for line in report.summary { print("ATTACK \(line)") }
        // By number: the macro would print each of them at length.
        let violations = report.violations.count
        #expect(violations == 0, "\(report.findings(limit: 40).joined(separator: "\n"))")
        #expect(report.parts.allSatisfy { $0.cases > 0 })
        return report
    }

    /// The page about the edge says of every row what became of it just now.
    @Test func everyFraming() async throws {
        let table = try #require(try await attack(.framing).table)
        let page = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
            .appending(path: "../../docs/http-edge.md").standardizedFileURL
        let stale = table.differences(from: try String(contentsOf: page, encoding: .utf8))
        #expect(
            stale.isEmpty,
            "make attack ARGS=\"--markdown docs/http-edge.md\" writes what was seen:\n\(stale.prefix(40).joined(separator: "\n"))"
        )
    }

    @Test func whatTheGatewayMustNotOpen() async throws { try await attack(.access) }

    @Test func damagedAndSplitRequests() async throws { try await attack(.fuzz) }

    @Test func slowSilentManyAndCutConnections() async throws { try await attack(.slow) }
}
