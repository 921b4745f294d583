import Foundation
import Testing

@testable import FlashSaleKit

@Suite("The stack script", .timeLimit(.minutes(10)))
struct StackScriptTests {
    @Test func settingsAreRead() {
        let settings = StackScript.settings(in: "A=1\nexport B='two words'\n# C=3\n\nD=\"x=y\"\n  E=\nnonsense\n=5")
        #expect(settings["A"] == "1")
        #expect(settings["B"] == "two words")
        #expect(settings["D"] == "x=y")
        #expect(settings["E"] == "")
        #expect(settings["nonsense"] == nil)
    }

    @Test func failureSaysWhatWasPrinted() async throws {
        let failure = await #expect(throws: StackScript.Failure.self) {
            try await StackScript.shell("echo the reason >&2; exit 3", environment: [:])
        }
        #expect(failure?.description.contains("(3): the reason") == true)
        await #expect(throws: StackScript.Failure.self) { try await StackScript(path: "/nonexistent/stack").run(["env"]) }
    }

    @Test func aServerLeftRunningDoesNotHoldTheScript() async throws {
        let began = ContinuousClock.now
        let output = try await StackScript.shell("sleep 60 & echo started", environment: [:])
        #expect(output == "started")
        #expect(ContinuousClock.now - began < .seconds(40))
    }

    @Test func aScriptThatHangsIsKilled() async {
        await #expect(throws: StackScript.Failure.self) {
            try await StackScript.shell("exec sleep 50", environment: [:], bound: .milliseconds(100))
        }
    }

    @Test func theServersProcessIsFoundInTheTable() {
        let table = "SERVER STATE PID PORT UP\nredis        running      4711   6379  3s\npostgres     stopped         -      -  -\n"
        #expect(Sale.pid(of: "redis", in: table) == 4711)
        #expect(Sale.pid(of: "postgres", in: table) == nil)
        #expect(Sale.pid(of: "gateway", in: table) == nil)
    }
}
