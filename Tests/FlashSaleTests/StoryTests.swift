import Foundation
import Testing

@testable import FlashSaleKit

@Suite("The story")
struct StoryTests {
    @Test func linesComeInTheOrderOfTheirTimes() {
        var story = Story()
        story.add("redis is back", at: .seconds(9))
        story.add("breaker CLOSED -> OPEN", at: .seconds(4.2))
        story.add("redis killed", at: .seconds(4))
        story.add("also at four", at: .seconds(4))
        #expect(story.lines.map(\.text) == ["redis killed", "also at four", "breaker CLOSED -> OPEN", "redis is back"])
    }

    @Test func aLineIsHeldBackForEarlierOnes() {
        var story = Story()
        story.add("redis killed", at: .seconds(4))
        #expect(story.tell(upTo: .seconds(4.5)).isEmpty)
        story.add("earlier", at: .seconds(3.9))
        #expect(story.tell(upTo: .seconds(4.71)).map(\.text) == ["earlier", "redis killed"])
        story.add("very late", at: .seconds(1))
        #expect(story.tell(upTo: .seconds(5)).map(\.text) == ["very late"])
        story.add("the end", at: .seconds(5))
        #expect(story.tellAll().map(\.text) == ["the end"])
        #expect(story.tellAll().isEmpty)
    }

    @Test func howTheSaleStandsIsToldInItsOrderAndNotKept() {
        var story = Story()
        story.pass("  0.5 s  100 orders/s", at: .milliseconds(500))
        story.add("sale opens", at: .zero)
        #expect(story.tell(upTo: .seconds(2)).map(\.rendered) == ["   0.000 s  sale opens", "  0.5 s  100 orders/s"])
        #expect(story.lines.map(\.text) == ["sale opens"])
        for index in 0..<(Story.limit + 5) { story.pass("line", at: .seconds(index)) }
        #expect(story.tellAll().count == Story.limit)
    }

    @Test func linesAreBounded() {
        var story = Story()
        for index in 0..<(Story.limit + 5) { story.add("line", at: .seconds(index)) }
        #expect(story.lines.count == Story.limit)
        #expect(story.dropped == 5)
    }

    @Test(arguments: [(Duration.zero, "   0.000 s  x"), (.milliseconds(12_345), "  12.345 s  x"), (.milliseconds(-250), "  -0.250 s  x")])
    func rendering(at: Duration, expected: String) {
        #expect(Story.Line(at: at, text: "x").rendered == expected)
    }
}

@Suite("What the breaker did")
struct BreakerHistoryTests {
    private let opened = Date(timeIntervalSince1970: 1_700_000_000)

    private func json(_ items: [(type: String, offset: Double, transition: String?)], key: String? = "circuitBreakerEvents") throws -> Data
    {
        let list = items.map { item in
            var event: [String: Any] = [
                "circuitBreakerName": "redisStock", "type": item.type,
                "creationTime": (opened + item.offset).formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true)),
            ]
            event["stateTransition"] = item.transition
            return event
        }
        return try JSONSerialization.data(withJSONObject: key.map { [$0: list] as Any } ?? list as Any)
    }

    @Test(arguments: ["circuitBreakerEvents", "events", nil])
    func transitionsAreReadOnce(key: String?) throws {
        var history = BreakerHistory()
        let data = try json(
            [
                ("STATE_TRANSITION", -60, "OPEN_TO_CLOSED"), ("ERROR", 4, nil), ("STATE_TRANSITION", 4.25, "CLOSED_TO_OPEN"),
                ("STATE_TRANSITION", 9.5, "OPEN_TO_HALF_OPEN"),
            ],
            key: key
        )
        let events = BreakerHistory.events(json: data)
        #expect(events.count == 4)
        #expect(history.learn(events, opened: opened).transitions.map(\.to) == ["OPEN", "HALF_OPEN"])
        #expect(history.learn(events, opened: opened).transitions.isEmpty)
        #expect(history.transitions.map(\.from) == ["CLOSED", "OPEN"])
        #expect(abs(history.transitions[0].atSeconds - 4.25) < 0.002)
        #expect(history.state == "HALF_OPEN")
    }

    @Test func resyncsAreNoticedAndSingleCallsAreNot() throws {
        var history = BreakerHistory()
        let text = """
            {"circuitBreakerEvents":[
            {"type":"RECOVERY_GATE_STARTED","creationTime":"2023-11-14T22:13:29.600Z","stateTransition":null,"reason":null,"count":1,"sequence":7},
            {"type":"RECOVERY_GATE_FAILED","creationTime":"2023-11-14T22:13:29.610Z","errorMessage":"no connection","durationInMs":10,"sequence":8},
            {"type":"RECOVERY_GATE_PASSED","creationTime":"2023-11-14T22:13:30.000Z","durationInMs":12,"sequence":9},
            {"type":"SLOW_CALL","creationTime":"2023-11-14T22:13:30.000Z","durationInMs":1200,"sequence":10}]}
            """
        let new = history.learn(BreakerHistory.events(json: Data(text.utf8)), opened: opened)
        #expect(new.notices.map(\.text) == ["resync begins", "resync failed after 10 ms: no connection", "resync done after 12 ms"])
        #expect(abs(new.notices[0].atSeconds - 9.6) < 0.002)
        #expect(new.transitions.isEmpty)
    }

    @Test(arguments: [
        "", "null", "[]", "{}", "{\"circuitBreakerEvents\":[{\"type\":1}]}",
        "[{\"type\":\"STATE_TRANSITION\",\"creationTime\":\"yesterday\"}]",
    ])
    func whatIsNoEventIsLeftOut(json: String) {
        #expect(BreakerHistory.events(json: Data(json.utf8)).isEmpty)
    }

    @Test func aChangeWithoutAnEventIsInferredAfterAWhile() {
        var history = BreakerHistory()
        #expect(history.look("CLOSED", atSeconds: 0) == nil)
        #expect(history.look("OPEN", atSeconds: 4) == nil)
        #expect(history.look("OPEN", atSeconds: 4.5) == nil)
        let inferred = history.look("OPEN", atSeconds: 5.1)
        #expect(inferred == BreakerTransition(atSeconds: 4, from: "CLOSED", to: "OPEN", reason: nil, inferred: true))
        #expect(history.look("OPEN", atSeconds: 6) == nil)
    }

    @Test func anEventExplainsAChange() throws {
        var history = BreakerHistory()
        _ = history.look("CLOSED", atSeconds: 0)
        _ = history.look("OPEN", atSeconds: 4)
        _ = history.learn(BreakerHistory.events(json: try json([("STATE_TRANSITION", 3.9, "CLOSED_TO_OPEN")])), opened: opened)
        #expect(history.look("OPEN", atSeconds: 9) == nil)
        #expect(history.transitions.count == 1)
    }

    @Test func theStateIsRead() {
        let json = #"{"circuitBreakers":{"redisStock":{"state":"HALF_OPEN","failureRate":"0.0%"}}}"#
        #expect(BreakerHistory.state(json: Data(json.utf8)) == "HALF_OPEN")
        #expect(BreakerHistory.state(json: Data("nonsense".utf8)) == nil)
    }

    @Test(arguments: [
        "2026-11-21T10:00:00Z", "2026-11-21T10:00:00.123Z", "2026-11-21T10:00:00.123456Z", "2026-11-21T10:00:00.117Z[Etc/UTC]",
        "2026-11-21T19:00:00.5+09:00",
    ])
    func times(text: String) throws {
        let time = try #require(BreakerHistory.time(text))
        #expect(abs(time.timeIntervalSince1970 - 1_795_255_200) < 1)
    }
}
