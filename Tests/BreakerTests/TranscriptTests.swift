import Foundation
import Testing

@testable import BreakerKit
@testable import FlashSaleKit

@Suite("The breaker's transcript")
struct TranscriptTests {
    private func body(_ state: String) -> Data {
        Data("{\"circuitBreakers\":{\"redisStock\":{\"state\":\"\(state)\"}}}".utf8)
    }

    @Test func onlyChangesAreTold() {
        var transcript = Transcript()
        #expect(transcript.look(body("CLOSED")) == "CLOSED")
        #expect(transcript.look(body("CLOSED")) == nil)
        #expect(transcript.look(Data("Service Unavailable".utf8)) == nil)
        #expect(transcript.look(body("OPEN")) == "OPEN")
        #expect(transcript.state == "OPEN")
        transcript.forget()
        #expect(transcript.look(body("OPEN")) == "OPEN")
    }

    @Test func theTimeHasASign() {
        #expect(Transcript.line(0, "x") == "  +0.000 s  x")
        #expect(Transcript.line(-1_005, "x") == "  -1.005 s  x")
        #expect(Transcript.line(12_070, "OPEN") == " +12.070 s  OPEN")
    }

    @Test func halfOpenSaysWhereTheGateIs() {
        func event(_ type: String) -> BreakerHistory.Event { .init(type: type, time: .now) }
        #expect(Transcript.words("OPEN", events: [event("RECOVERY_GATE_PASSED")]) == "OPEN")
        #expect(Transcript.words("HALF_OPEN", events: []) == "HALF_OPEN")
        #expect(Transcript.words("HALF_OPEN", events: [event("RECOVERY_GATE_STARTED")]) == "HALF_OPEN, the recovery is running")
        #expect(
            Transcript.words("HALF_OPEN", events: [event("RECOVERY_GATE_STARTED"), event("RECOVERY_GATE_PASSED"), event("ERROR")])
                == "HALF_OPEN, the recovery has passed: probes"
        )
        #expect(Transcript.words("HALF_OPEN", events: [event("RECOVERY_GATE_FAILED")]) == "HALF_OPEN")
    }

    @Test func plansAreChecked() throws {
        #expect(try BreakerRun.Plan(fault: .kill).loadSeconds == 25)
        #expect(throws: PlanError.self) { try BreakerRun.Plan(fault: .kill, outage: 0) }
        #expect(throws: PlanError.self) { try BreakerRun.Plan(fault: .kill, rate: 9) }
    }
}

@Suite("The way back of the breaker")
struct RecoveryStoryTests {
    private let fault = Date(timeIntervalSince1970: 1_000)

    /// Events a second apart, the first one at the fault: transitions by their states, gates by their words, errors by what they say.
    private func story(_ words: [String], offset: Double = 0) -> RecoveryStory {
        let events = words.enumerated().map { index, word in
            let time = fault.addingTimeInterval(Double(index) + offset)
            if word.contains("_TO_") { return BreakerHistory.Event(type: "STATE_TRANSITION", time: time, transition: word) }
            if word.hasPrefix("RECOVERY_GATE") { return BreakerHistory.Event(type: word, time: time, took: 12) }
            return BreakerHistory.Event(type: "ERROR", time: time, reason: word)
        }
        return RecoveryStory(events, since: fault)
    }

    private let good = [
        "CLOSED_TO_OPEN", "OPEN_TO_HALF_OPEN", "RECOVERY_GATE_STARTED", "RECOVERY_GATE_PASSED", "HALF_OPEN_TO_CLOSED",
    ]

    @Test func openedAndClosedBehindItsGate() {
        #expect(story(good).findings.isEmpty)
    }

    @Test func aGateThatFailedIsTriedAgain() {
        let again = [
            "CLOSED_TO_OPEN", "OPEN_TO_HALF_OPEN", "RECOVERY_GATE_STARTED", "RECOVERY_GATE_FAILED", "HALF_OPEN_TO_OPEN",
        ]
        #expect(story(again + good.dropFirst()).findings.isEmpty)
    }

    @Test func whatIsNotAsItShouldBe() {
        #expect(story([]).findings == ["the breaker did not open"])
        #expect(story(Array(good.dropLast())).findings == ["the breaker did not close again"])
        #expect(story(good.filter { $0 != "RECOVERY_GATE_PASSED" }).findings == ["the breaker closed without a recovery that had passed"])
        #expect(story(good + ["CLOSED_TO_OPEN"]).findings == ["the breaker opened again after it had closed"])
        // A gate that passed before the last opening lets nobody through.
        let stale = [
            "CLOSED_TO_OPEN", "OPEN_TO_HALF_OPEN", "RECOVERY_GATE_PASSED", "HALF_OPEN_TO_OPEN", "OPEN_TO_HALF_OPEN", "HALF_OPEN_TO_CLOSED",
        ]
        #expect(story(stale).findings == ["the breaker closed without a recovery that had passed"])
    }

    @Test func whatWasBeforeTheFaultBelongsToTheStart() {
        #expect(story(good, offset: -10).findings == ["the breaker did not open"])
        #expect(story(["timeout"], offset: -1).errors.isEmpty)
    }

    @Test func linesAndErrors() {
        let told = story(good + ["timeout", "refused", "timeout"])
        let lines = told.lines(since: fault)
        #expect(lines.count == 5)
        #expect(lines[0] == "  +0.000 s  STATE_TRANSITION CLOSED_TO_OPEN")
        #expect(lines[3] == "  +3.000 s  RECOVERY_GATE_PASSED after 12 ms")
        #expect(told.errorLine == "and of single calls: 2 x timeout, 1 x refused")
        #expect(story(good).errorLine == "no errors of single calls")
    }
}
