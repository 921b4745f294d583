import Testing

@testable import AttackKit

/// The checks must be able to fail: servers that are wrong in one way each, and what is said of them.
@Suite("The judge and servers that are wrong")
struct JudgeTests {
    private static let requests = Requests(run: "t", goods: Goods(hot: 7, hotCode: "C", plain: 8), base: 1_000)
    /// Silence is told from an answer by this; a busy machine takes a while for an answer that is scripted to come at once.
    private static let patience = Duration.milliseconds(1_500)

    /// What is seen of a row at a server that does `script`, with these counts in the stores.
    private func judge(
        _ number: Int,
        target: Target = .productHot,
        first: Int = 1,
        second: Int = 1,
        slack: Duration = .zero,
        _ script: @escaping @Sendable (String) -> [ScriptedServer.Act]
    ) async throws -> (outcome: Outcome, rules: Set<Violation.Rule>) {
        let row = try #require(FramingCases.all.first { $0.number == number })
        let server = try ScriptedServer(script)
        return try await Workers.run {
            let port = server.port
            let (a, s) = (Self.requests.changing(target, 1, port: port), Self.requests.changing(target, 2, port: port))
            let probe = Self.requests.probe(target, 3, port: port)
            let transcript = try Exchange(port: port, patience: Self.patience).perform(
                row.steps(a, s),
                answers: row.answers,
                methods: row.method.map { [$0] } ?? [],
                probe: row.traits.contains(.isIncomplete) ? nil : probe.text
            )
            let judge = Judge(row: row, target: target, first: a, second: s, probe: probe, slack: slack)
            let (outcome, violations) = judge.judge(transcript, Effects(first: first, second: second))
            withExtendedLifetime(server) {}
            return (outcome, Set(violations.map(\.rule)))
        }
    }

    /// Answers each request of a packet with success, and the probe, which asks for it, with a close.
    private static let proper: @Sendable (String) -> [ScriptedServer.Act] = { text in
        let closes = text.contains("Connection: close")
        return Written.ids(in: text).map { .write(Written.answer(200, id: $0, closes: closes)) } + (closes ? [.close] : [])
    }

    @Test func aProperServerIsNotBlamed() async throws {
        let answered = try await judge(5, Self.proper)
        #expect(answered.outcome == .answered)
        #expect(answered.rules == [])
        let refused = try await judge(1, first: 0, second: 0) { _ in [.write(Written.refusal()), .close] }
        #expect(refused.outcome == .refusedClosed)
        #expect(refused.rules == [])
        let closed = try await judge(120, second: 0) { text in
            [.write(Written.answer(200, id: Written.ids(in: text)[0], closes: true)), .close]
        }
        #expect(closed.outcome == .answeredClosed)
        #expect(closed.rules == [])
        let kept = try await judge(116, first: 0) { text in
            let ids = Written.ids(in: text)
            return ids.count == 1
                ? Self.proper(text) : [.write(Written.refusal(405, id: ids[0], closes: false) + Written.answer(200, id: ids[1]))]
        }
        #expect(kept.outcome == .refusedKept)
        #expect(kept.rules == [])
    }

    @Test func anAnswerThatNeverComesIsStuck() async throws {
        let seen = try await judge(104, second: 0) { text in [.write(Written.answer(200, id: Written.ids(in: text)[0]))] }
        #expect(seen.outcome == .stuck)
        #expect(seen.rules == [.stuck])
        // The swallowed request runs when the client gives up.
        let late = try await judge(104, second: 1) { text in [.write(Written.answer(200, id: Written.ids(in: text)[0]))] }
        #expect(late.rules == [.stuck, .executedUnanswered])
        let nothing = try await judge(5, first: 0, second: 0) { _ in [] }
        #expect(nothing.rules == [.stuck])
    }

    @Test func anAnswerToTheProbeThatNeverComesIsStuck() async throws {
        let seen = try await judge(5) { text in
            Written.ids(in: text).count == 2 ? Self.proper(text) : []
        }
        #expect(seen.rules == [.stuck])
    }

    @Test func aRequestBehindACloseMustNotBeCarriedOut() async throws {
        let seen = try await judge(120, second: 1) { text in
            [.write(Written.answer(200, id: Written.ids(in: text)[0], closes: true)), .close]
        }
        #expect(seen.rules == [.executedAfterClose])
    }

    @Test func aCloseWithoutNoticeIsSeen() async throws {
        let seen = try await judge(119, second: 0) { text in [.write(Written.answer(200, id: Written.ids(in: text)[0])), .close] }
        #expect(seen.rules == [.unannouncedClose])
        let silent = try await judge(1, first: 0, second: 0) { _ in [.close] }
        #expect(silent.outcome == .closedSilently)
        #expect(silent.rules == [.noAnswer, .outcome])
        let cut = try await judge(1, first: 0, second: 0) { _ in [.cut] }
        #expect(cut.outcome == .closedSilently)
    }

    @Test func aCloseThatDoesNotComeIsSeen() async throws {
        let afterwards = try await judge(5) { text in Written.ids(in: text).map { .write(Written.answer(200, id: $0)) } }
        #expect(afterwards.rules == [.leftOpen])
    }

    @Test(arguments: [
        (Written.answer(400, id: "x", body: "<html>400 Bad Request</html>", type: "text/html", closes: true), Violation.Rule.errorShape),
        (Written.answer(400, id: "x", body: "", closes: true), .errorShape),
        (Written.refusal(500), .serverError), (Written.refusal(503), .serverError), (Written.refusal(id: nil), .requestID),
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", .malformedAnswer),
    ])
    func aRefusalInAnotherShapeIsSeen(_ answer: String, _ rule: Violation.Rule) async throws {
        let seen = try await judge(1, first: 0, second: 0) { _ in [.write(answer), .close] }
        #expect(seen.rules.contains(rule))
    }

    @Test func whatMustBeRefusedIsNotAnswered() async throws {
        let seen = try await judge(1, Self.proper)
        #expect(seen.outcome == .answered)
        #expect(seen.rules == [.outcome])
    }

    @Test func effectsAndAnswersMustAgree() async throws {
        #expect(try await judge(5, first: 2, Self.proper).rules == [.executedTwice])
        #expect(try await judge(5, first: 0, Self.proper).rules == [.answeredNotExecuted])
        #expect(try await judge(5, second: 0, Self.proper).rules == [.answeredNotExecuted])
        #expect(try await judge(1, first: 1, second: 0) { _ in [.write(Written.refusal()), .close] }.rules == [.executedRefused])
        // The smuggled one: S was A's body for the one that answers, and a request for the one that carries out.
        let smuggled = try await judge(138, first: 0, second: 1) { text in
            text.contains("livez") ? Self.proper(text) : [.write(Written.refusal(id: Written.ids(in: text)[0], closes: false))]
        }
        #expect(smuggled.rules == [.executedUnanswered])
    }

    @Test func answersInAnotherOrderAreSeen() async throws {
        let swapped = try await judge(5) { text in
            let ids = Written.ids(in: text)
            return ids.count == 2 ? ids.reversed().map { .write(Written.answer(200, id: $0)) } : Self.proper(text)
        }
        #expect(swapped.rules == [.order])
        let extra = try await judge(5) { text in
            let ids = Written.ids(in: text)
            return ids.count == 2 ? (ids + [ids[1]]).map { .write(Written.answer(200, id: $0)) } : Self.proper(text)
        }
        #expect(extra.rules.contains(.order))
        // An answer that comes when the next request does.
        let shifted = try await judge(5) { text in
            let ids = Written.ids(in: text)
            return ids.count == 2
                ? Self.proper(text) : [.write(Written.answer(200, id: "somebody") + Written.answer(200, id: ids[0], closes: true)), .close]
        }
        #expect(shifted.rules == [.order])
        let behind = try await judge(120, second: 1) { text in
            Written.ids(in: text).map { .write(Written.answer(200, id: $0, closes: true)) } + [.close]
        }
        #expect(behind.rules == [.order, .outcome])
    }

    @Test func oneHundredMustComeInTimeAndOnlyWhenAsked() async throws {
        let hundred = "HTTP/1.1 100 Continue\r\n\r\n"
        func expecting(_ acts: [ScriptedServer.Act], slack: Duration = .zero) async throws -> Set<Violation.Rule> {
            try await judge(214, slack: slack) { text in
                text.contains("Expect: 100-continue")
                    ? acts
                    : (text.contains("livez")
                        ? Self.proper(text) : [.write(Written.answer(200, id: "t.1")), .write(Written.answer(200, id: "t.2"))])
            }.rules
        }
        #expect(try await expecting([.write(hundred)], slack: .seconds(20)) == [])
        #expect(try await expecting([.pause(milliseconds: 130), .write(hundred)]) == [.interim])
        #expect(try await expecting([]) == [.interim])
        #expect(
            try await judge(5) { text in (Written.ids(in: text).count == 2 ? [.write(hundred)] : []) + Self.proper(text) }.rules == [
                .interim
            ]
        )
    }

    @Test func partOfARequestIsWaitedForAndEndsWithTheClient() async throws {
        let waits = try await judge(244, first: 0, second: 0) { _ in [] }
        #expect(waits.outcome == .waited)
        #expect(waits.rules == [])
        let hasty = try await judge(244, first: 1, second: 0, Self.proper)
        #expect(hasty.outcome != .waited)
        #expect(hasty.rules.contains(.outcome))
    }

    @Test func aBodyThatEndsInTwoPlacesIsSeen() throws {
        let row = try #require(FramingCases.all.first { $0.number == 138 })
        let violations = Judge.compare(
            row,
            [.orderHot: (.refusedAlone, Effects(first: 0, second: 0)), .gatewayOrderHot: (.refusedKept, Effects(first: 0, second: 1))]
        )
        #expect(violations.map(\.rule) == [.disagreement])
        #expect(
            Judge.compare(
                row,
                [.orderHot: (.refusedClosed, Effects(first: 0, second: 0)), .gatewayOrderHot: (.answered, Effects(first: 1, second: 1))]
            ).isEmpty
        )
    }

    @Test func routesThatReadTheSameBytesDifferentlyAreSeen() throws {
        let row = try #require(FramingCases.all.first { $0.number == 129 })
        let taken = (outcome: Outcome.answered, effects: Effects(first: 1, second: 1))
        let refused = (outcome: Outcome.refusedClosed, effects: Effects(first: 0, second: 0))
        #expect(Judge.compare(row, [.orderHot: taken, .orderRouter: refused, .orderAsync: taken]).map(\.rule) == [.difference])
        #expect(Judge.compare(row, [.orderHot: taken, .orderRouter: taken, .productHot: refused, .productRouter: refused]).isEmpty)
    }

    @Test func aBystanderWhoIsHarmedSaysSo() async throws {
        let draft = Self.requests.bodiless("GET", "/livez", 9, 80)
        for (answer, isHarmed) in [
            (Written.answer(200, id: draft.id), false), (Written.refusal(), true), (Written.answer(200, id: "another"), true), ("", true),
            ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", true),
        ] {
            let server = try ScriptedServer { _ in answer.isEmpty ? [.close] : [.write(answer)] }
            let why = try await Workers.run { Bystander(port: server.port).ask(draft, within: .seconds(30)) }
            #expect((why != nil) == isHarmed, "\(answer): \(why ?? "not harmed")")
        }
    }

    @Test func aRequestThatNeverEndsMustBeEnded() async throws {
        // A busy machine may take seconds for what is scripted: what ends has minutes, and only what never ends is watched for a moment.
        func seen(
            after least: Duration = .milliseconds(100),
            before bound: Duration = .seconds(120),
            _ script: @escaping @Sendable (String) -> [ScriptedServer.Act]
        ) async throws -> String? {
            let server = try ScriptedServer(script)
            return try await Workers.run { SlowPart.neverEnding(port: server.port, "GET / HT", "", after: least, before: bound) }
        }
        #expect(try await seen { _ in [.pause(milliseconds: 200), .close] } == nil)
        #expect(try await seen { _ in [.pause(milliseconds: 200), .write(Written.refusal(408)), .close] } == nil)
        #expect(try await seen(before: .milliseconds(400)) { _ in [] }?.contains("still open") == true)
        #expect(try await seen(after: .seconds(60)) { _ in [.close] }?.contains("before its time") == true)
        #expect(
            try await seen { _ in [.pause(milliseconds: 200), .write(Written.answer(408, id: "a", body: "")), .close] }?.contains("408")
                == true
        )
    }
}
