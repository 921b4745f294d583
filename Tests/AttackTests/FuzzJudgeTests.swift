import Testing

@testable import AttackKit

@Suite("The judge of damaged requests")
struct FuzzJudgeTests {
    private static let requests = Requests(run: "t", goods: Goods(hot: 7, hotCode: "C", plain: 8), base: 1_000)

    private func original(_ number: Int) -> FuzzPart.Original {
        let draft = Self.requests.changing(.orderHot, number, port: 80)
        return FuzzPart.Original(draft: draft, bytes: [UInt8](latin1: draft.text))
    }

    private func answer(_ status: Int, _ number: Int?, closes: Bool = false) -> Answer {
        var answer = Answer(status: status, body: [UInt8](latin1: status < 400 ? "{}" : Written.error))
        answer.fields = [
            .init(name: "Content-Type", value: "application/json"), .init(name: "X-Request-Id", value: number.map { "t.\($0)" } ?? "srv"),
        ]
        if closes { answer.fields.append(.init(name: "Connection", value: "close")) }
        return answer
    }

    private func rules(
        _ bytes: [UInt8],
        _ originals: [FuzzPart.Original],
        _ answers: [Answer],
        hasEnded: Bool = true,
        counts: [String: Int] = [:],
        target: Target = .orderHot
    ) -> Set<Violation.Rule> {
        let plan = FuzzPart.Plan(number: 1, target: target, originals: originals, bytes: bytes, cuts: [], finish: .end, damage: "")
        return Set(FuzzPart.judge(plan, FuzzPart.Seen(answers: answers, hasEnded: hasEnded), counts).map(\.rule))
    }

    @Test func wholeRequestsAreAnsweredInTheirOrder() {
        let all = [original(1), original(2)]
        let bytes = all.flatMap(\.bytes)
        let both = ["atk-t.1": 1, "atk-t.2": 1]
        #expect(rules(bytes, all, [answer(200, 1), answer(200, 2)], counts: both) == [])
        #expect(rules(bytes, all, [answer(200, 1)], counts: ["atk-t.1": 1]) == [.stuck])
        #expect(rules(bytes, all, [answer(200, 1)], counts: both) == [.stuck, .executedUnanswered])
        #expect(rules(bytes, all, [answer(200, 2), answer(200, 1)], counts: both) == [.order])
        #expect(rules(bytes, all, [answer(200, 1), answer(200, 2), answer(200, 2)], counts: both) == [.order])
        #expect(rules(bytes, all, [answer(200, 1), answer(200, 2)], counts: ["atk-t.1": 1]) == [.answeredNotExecuted])
        #expect(rules(bytes, all, [answer(200, 1), answer(200, 2)], counts: ["atk-t.1": 1, "atk-t.2": 2]) == [.executedTwice])
        #expect(rules(bytes, all, [answer(400, nil, closes: true)]) == [.outcome])
        #expect(rules(bytes, all, [answer(200, 1), answer(200, 2)], hasEnded: false, counts: both) == [.stuck])
    }

    @Test func nothingIsCarriedOutBehindAClose() {
        var first = Self.requests.changing(.orderHot, 1, port: 80)
        first.lines.append("Connection: close")
        let one = FuzzPart.Original(draft: first, bytes: [UInt8](latin1: first.text))
        let all = [one, original(2)]
        let bytes = all.flatMap(\.bytes)
        #expect(rules(bytes, all, [answer(200, 1, closes: true)], counts: ["atk-t.1": 1]) == [])
        #expect(rules(bytes, all, [answer(200, 1)], counts: ["atk-t.1": 1]) == [.leftOpen])
        #expect(rules(bytes, all, [answer(200, 1, closes: true), answer(200, 2)], counts: ["atk-t.1": 1]) == [.order])
    }

    @Test func whatMustBeRefusedEndsTheConnection() {
        let all = [original(1), original(2)]
        let bad = [UInt8](latin1: "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        let bytes = all[0].bytes + bad + all[1].bytes
        let one = ["atk-t.1": 1]
        #expect(rules(bytes, all, [answer(200, 1), answer(400, nil, closes: true)], counts: one) == [])
        #expect(rules(bytes, all, [answer(200, 1), answer(400, nil)], counts: one) == [.unannouncedClose])
        #expect(rules(bytes, all, [answer(200, 1)], counts: one) == [.noAnswer])
        #expect(rules(bytes, all, [answer(200, 1), answer(200, nil, closes: true)], counts: one) == [.outcome])
        #expect(rules(bytes, all, [answer(200, 1), answer(400, nil, closes: true), answer(200, 2)], counts: one).contains(.order))
    }

    @Test func aReadMayBeAnsweredBeforeItsBodyAndNotAgainBehindIt() {
        let read = [UInt8](latin1: "GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        #expect(rules(read, [], [answer(200, nil)]) == [])
        #expect(rules(read, [], [answer(400, nil, closes: true)]) == [])
        #expect(rules(read, [], [answer(200, nil), answer(400, nil, closes: true)]) == [.order])
        let write = [UInt8](latin1: "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{}")
        #expect(rules(write, [], [answer(400, nil, closes: true)]) == [])
        #expect(rules(write, [], [answer(200, nil)]) == [.outcome])
        #expect(rules(Array(write.dropLast(2)), [], []) == [])
    }

    @Test func aRequestWithinABodyIsNotCarriedOut() {
        let inner = original(2)
        let outer = [UInt8](latin1: "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: \(inner.bytes.count)\r\n\r\n") + inner.bytes
        #expect(rules(outer, [inner], [answer(400, nil)]) == [])
        #expect(rules(outer, [inner], [answer(400, nil)], counts: ["atk-t.2": 1]) == [.executedUnanswered])
    }

    @Test func doubtfulBytesAreLeftToTheServer() {
        let all = [original(1), original(2)]
        let folded = [UInt8](latin1: "GET /livez HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n")
        let bytes = all[0].bytes + folded + all[1].bytes
        let one = ["atk-t.1": 1]
        let both = ["atk-t.1": 1, "atk-t.2": 1]
        #expect(rules(bytes, all, [answer(200, 1), answer(400, nil, closes: true)], counts: one) == [])
        #expect(rules(bytes, all, [answer(200, 1), answer(200, nil), answer(200, 2)], counts: both) == [])
        #expect(rules(bytes, all, [answer(200, 1), answer(500, nil, closes: true)], counts: one) == [.serverError])
    }

    @Test func theSameSeedGivesTheSameBytes() throws {
        let stand = try Stand(
            environment: ["PRODUCT_PORT": "1", "PRODUCT_ADMIN_PORT": "2", "ORDER_PORT": "3", "ORDER_ADMIN_PORT": "4", "GATEWAY_PORT": "5"],
            binaries: ""
        ) { _ in }
        func part(_ seed: UInt64) -> FuzzPart {
            FuzzPart(stand: stand, requests: Self.requests, seed: seed, count: 100, splitStride: 50, patience: .seconds(1))
        }
        let bytes = { (seed: UInt64) in (0..<100).map { part(seed).plan($0).bytes } }
        #expect(bytes(1) == bytes(1))
        #expect(bytes(1) != bytes(2))
        // Every split is of whole requests.
        for plan in part(1).splits() {
            #expect(RequestFraming.read(plan.bytes).count == 3)
            #expect(plan.cuts.count == 1)
        }
    }
}
