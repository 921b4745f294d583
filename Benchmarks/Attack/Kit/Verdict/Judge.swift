// Compares what happened with the rules that must always hold. Pure: a transcript and counts go in, an outcome and violations come out.

/// How often each request of a case is in the stores; nil for one that changes nothing there.
struct Effects: Sendable, Equatable {
    var first: Int?
    var second: Int?
}

/// Judges one case at one target.
struct Judge {
    /// How long `100 Continue` may take.
    static let continueWithin = Duration.milliseconds(100)

    let row: FramingCase
    let target: Target
    let first: Draft
    let second: Draft
    let probe: Draft
    /// Time that a slow machine, not the server, may add to a bound.
    var slack = Duration.zero

    /// What became of the case, and which rules were broken.
    func judge(_ transcript: Transcript, _ effects: Effects) -> (outcome: Outcome, violations: [Violation]) {
        var found: [Violation] = []
        func note(_ rule: Violation.Rule, _ text: String) {
            found.append(Violation(part: "framing", subject: "\(row.number) \(row.name)", place: target.name, rule: rule, text: text))
        }
        let outcome = outcome(transcript)
        for (rule, text) in Self.faults(
            of: transcript.answers + transcript.lateAnswers + transcript.probeAnswers,
            methods: [row.method ?? "GET"]
        ) {
            note(rule, text)
        }
        ending(transcript, outcome, note)
        order(transcript, note)
        executed(transcript, effects, note)
        interim(transcript, note)
        if !row.allowed(at: target).outcomes.contains(outcome), outcome != .stuck {
            note(.outcome, "\(outcome.rawValue) (\(transcript.shown)\(effects.shown)), allowed: \(row.allowed(at: target).shown)")
        }
        return (outcome, found)
    }

    private typealias Note = (Violation.Rule, String) -> Void

    // MARK: Outcome

    func outcome(_ transcript: Transcript) -> Outcome {
        if case .notHTTP = transcript.fault, transcript.answers.isEmpty, transcript.ending == .closed { return .plainBody }
        if transcript.fault != nil { return .garbled }
        let answers = transcript.answers
        if case .silent = transcript.ending { return .stuck }
        if row.traits.contains(.isIncomplete), answers.isEmpty { return .waited }
        if answers.count > max(row.answers, 1) { return .garbled }
        let isOpen = transcript.ending != .closed
        switch (answers.first?.isSuccess, answers.count > 1 ? answers[1].isSuccess : nil) {
        case (nil, _): return .closedSilently
        case (true?, true?): return .answered
        case (true?, false?): return .answeredRefused
        case (false?, true?): return .refusedKept
        case (false?, false?): return .refusedTwice
        // A client that has finished sending needs no notice.
        case (true?, nil):
            return isOpen || transcript.hasFinishedSending || row.traits.contains(.isIncomplete) ? .answeredAlone : .answeredClosed
        case (false?, nil): return isOpen ? .refusedAlone : .refusedClosed
        }
    }

    // MARK: Answers

    /// What is wrong with answers by themselves, wherever they come from.
    static func faults(of answers: [Answer], methods: [String] = []) -> [(Violation.Rule, String)] {
        var faults: [(Violation.Rule, String)] = []
        for (index, answer) in answers.enumerated() {
            if answer.status >= 500 { faults.append((.serverError, "\(answer.status) \(answer.body.latin1.shown(limit: 80))")) }
            let ids = answer.values("x-request-id")
            if ids.count != 1 || ids[0].isEmpty { faults.append((.requestID, "\(answer.status) with \(ids.count) X-Request-Id")) }
            let isHead = index < methods.count && methods[index] == "HEAD"
            if answer.status >= 400, !isHead, let fault = answer.errorShapeFault {
                faults.append((.errorShape, "\(answer.status) with \(fault)"))
            }
            if answer.framing == .connection, !answer.announcesClose {
                faults.append(
                    (.malformedAnswer, "\(answer.status) with neither Content-Length nor Transfer-Encoding nor Connection: close")
                )
            }
        }
        return faults
    }

    private func ending(_ transcript: Transcript, _ outcome: Outcome, _ note: Note) {
        switch transcript.fault {
        // An answer of HTTP/0.9 has no head in which it could announce the close.
        case .notHTTP where outcome == .plainBody: return
        case let fault?: note(.malformedAnswer, "\(fault)")
        case nil: break
        }
        let owed = max(row.answers, 1)
        switch transcript.ending {
        case .silent(let ended):
            note(
                .stuck,
                "\(transcript.answers.count) of \(owed) requests answered (\(transcript.shown))"
                    + (ended ? "" : "; it does not end when the client does")
            )
        case .leftOpen:
            if transcript.hasFinishedSending {
                note(.leftOpen, "the client has finished sending, and the server does not close (\(transcript.shown))")
            } else if let last = transcript.answers.last, last.announcesClose, transcript.probeAnswers.isEmpty {
                note(.leftOpen, "the server says Connection: close and does not (\(transcript.shown))")
            } else if transcript.probeAnswers.isEmpty {
                note(.stuck, "a request that follows the case gets no answer (\(transcript.shown))")
            } else {
                note(.leftOpen, "a request that follows asks for Connection: close, and the server does not (\(transcript.shown))")
            }
        case .closed:
            if let last = transcript.answers.last {
                if !last.announcesClose, !transcript.hasFinishedSending, transcript.fault == nil {
                    note(.unannouncedClose, "closed behind \(transcript.shown)")
                }
            } else if outcome == .closedSilently, !row.allowed(at: target).outcomes.contains(.closedSilently) {
                note(.noAnswer, "closed without an answer")
            }
        case .probed: break
        }
        for (index, answer) in transcript.answers.enumerated() where answer.announcesClose && index + 1 < transcript.answers.count {
            note(.order, "an answer behind one with Connection: close (\(transcript.shown))")
        }
    }

    private func order(_ transcript: Transcript, _ note: Note) {
        if transcript.answers.count > max(row.answers, 1) { note(.order, "\(transcript.answers.count) answers to \(row.answers) requests") }
        if !transcript.probeAnswers.isEmpty {
            let ids = transcript.probeAnswers.map { $0.requestID ?? "none" }
            if ids != [probe.id] {
                note(.order, "behind the case comes \(ids.joined(separator: ", ")), not the answer to the request that was sent")
            }
        }
        // A successful answer carries the request's id. A refusal may come before the id was read.
        for (index, answer) in transcript.answers.enumerated() where answer.isSuccess {
            let expected = index == 0 ? first : second
            if index == 0, row.traits.contains(.idIsUnclear) || row.answers == 0 { continue }
            if let id = answer.requestID, id != expected.id, answer.values("x-request-id").count == 1 {
                note(.order, "answer \(index + 1) is \(id)'s, not \(expected.id)'s")
            }
        }
        let named = (transcript.answers + transcript.lateAnswers).compactMap(\.requestID)
        for id in [first.id, second.id] where named.filter({ $0 == id }).count > 1 { note(.order, "\(id) is answered twice") }
    }

    // MARK: Effects

    private func executed(_ transcript: Transcript, _ effects: Effects, _ note: Note) {
        let answers = transcript.answers + transcript.lateAnswers
        if !row.traits.contains(.keyIsUnclear) {
            check(
                "A",
                effects.first,
                answers.first,
                isAnswerKnown: true,
                isChanging: !row.traits.contains(.changesNothing),
                transcript,
                note
            )
        }
        // A single answer may be right: then S was part of A, or was refused with A.
        check(
            "S",
            effects.second,
            answers.count > 1 ? answers[1] : nil,
            isAnswerKnown: answers.count <= 2,
            isChanging: true,
            transcript,
            note
        )
    }

    private func check(
        _ name: String,
        _ count: Int?,
        _ answer: Answer?,
        isAnswerKnown: Bool,
        isChanging: Bool,
        _ transcript: Transcript,
        _ note: Note
    ) {
        guard let count else { return }
        if count > 1 { note(.executedTwice, "\(name) was carried out \(count) times (\(transcript.shown))") }
        guard isAnswerKnown else { return }
        if let answer {
            if count > 0, !answer.isSuccess {
                note(.executedRefused, "\(name) was answered \(answer.status) and carried out (\(transcript.shown))")
            }
            if count == 0, answer.isSuccess, isChanging {
                note(.answeredNotExecuted, "\(name) was answered \(answer.status) and not carried out (\(transcript.shown))")
            }
        } else if count > 0 {
            let isClosed = transcript.answers.last?.announcesClose ?? false
            note(isClosed ? .executedAfterClose : .executedUnanswered, "\(name) was carried out and never answered (\(transcript.shown))")
        }
    }

    private func interim(_ transcript: Transcript, _ note: Note) {
        let isAsked = row.traits.contains(.wantsContinue) || row.traits.contains(.mayContinue)
        if !isAsked, !transcript.interim.isEmpty { note(.interim, "\(transcript.interim.map(\.answer.status)) that nobody asked for") }
        if transcript.interim.contains(where: { $0.answer.status == 101 }) { note(.interim, "101: nothing here is upgraded") }
        guard row.traits.contains(.wantsContinue) else { return }
        guard let hundred = transcript.interim.first else {
            if transcript.answers.first?.isSuccess != false {
                note(.interim, "no 100 Continue: a client that waits for it never sends its body")
            }
            return
        }
        if hundred.after > Self.continueWithin + slack { note(.interim, "100 Continue after \(hundred.after)") }
    }

    // MARK: Between targets

    /// What must hold between a case's outcomes at several targets.
    static func compare(_ row: FramingCase, _ seen: [Target: (outcome: Outcome, effects: Effects)]) -> [Violation] {
        var found: [Violation] = []
        let subject = "\(row.number) \(row.name)"
        for target in Target.allCases where target.isGateway {
            guard let through = seen[target], let direct = seen[target.direct] else { continue }
            let executed = (direct.effects.second ?? 0, through.effects.second ?? 0)
            let isSwallowed = { (outcome: Outcome) in outcome == .answeredAlone || outcome == .refusedAlone }
            if (executed.0 > 0 && isSwallowed(through.outcome)) || (executed.1 > 0 && isSwallowed(direct.outcome)) {
                found.append(
                    Violation(
                        part: "framing",
                        subject: subject,
                        place: target.name,
                        rule: .disagreement,
                        text:
                            "S is a request of its own on one side (\(direct.outcome.rawValue)) and part of A on the other (\(through.outcome.rawValue))"
                    )
                )
            }
        }
        guard !row.traits.contains(.mayDiffer), !row.traits.contains(.guarded), !row.traits.contains(.changesNothing),
            !row.traits.contains(.keyIsUnclear)
        else { return found }
        for column in Target.columns {
            let taken = column.targets.compactMap { target in
                seen[target].map { (target, [Outcome.answered, .answeredClosed, .answeredAlone, .answeredRefused].contains($0.outcome)) }
            }
            guard let one = taken.first(where: \.1), let other = taken.first(where: { !$0.1 }),
                seen[other.0]?.outcome != .stuck
            else { continue }
            found.append(
                Violation(
                    part: "framing",
                    subject: subject,
                    place: column.title,
                    rule: .difference,
                    text: "\(one.0.name) carries A out, \(other.0.name) does not"
                )
            )
        }
        return found
    }
}

extension Effects {
    /// The counts in a finding's words, such as ` A1 S0`.
    var shown: String { (first.map { " A\($0)" } ?? "") + (second.map { " S\($0)" } ?? "") }
}

extension Allowed {
    var shown: String { outcomes.map(\.rawValue).sorted().joined(separator: " | ") }
}
