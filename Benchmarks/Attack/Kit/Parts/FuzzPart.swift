// Requests with random damage, cut at random places. What they mean is read by `RequestFraming`, which knows nothing of the servers; what the servers make of
// them is held against that. The same seed gives the same bytes.

import FlashSaleKit
import SeededRandom

/// Damaged requests, and whole ones split at every byte.
struct FuzzPart {
    let stand: Stand
    let requests: Requests
    let seed: UInt64
    let count: Int
    /// Whole requests are split at every so many bytes.
    let splitStride: Int
    let patience: Duration

    /// One of a pipeline's requests as it was before the damage.
    struct Original: Sendable {
        let draft: Draft
        let bytes: [UInt8]
    }

    /// What is done at the end of a connection.
    enum Finish: Sendable {
        case end, wait, cut
    }

    struct Plan: Sendable {
        let number: Int
        let target: Target
        let originals: [Original]
        let bytes: [UInt8]
        /// Where it is cut into packets.
        let cuts: [Int]
        let finish: Finish
        let damage: String
    }

    struct Seen: Sendable {
        var answers: [Answer] = []
        var fault: AnswerFault?
        /// Whether the server ended the connection before the client had finished.
        var isClosedEarly = false
        var hasEnded = false
        var failure: String?
    }

    private static let targets: [Target] = [.productHot, .orderHot, .gatewayProductHot, .gatewayOrderHot, .productAdmin]

    // MARK: Plans

    func plan(_ number: Int) -> Plan {
        var random = SplitMix64(seed: seed &+ UInt64(number) &* 0x9E37_79B9)
        let target = Self.targets[Int.random(in: 0..<(number % 7 == 0 ? 5 : 4), using: &random)]
        let originals = pipeline(target, number, Int.random(in: 1...4, using: &random), &random)
        var bytes = originals.flatMap(\.bytes)
        var damage: [String] = []
        for _ in 0..<Int.random(in: 0...3, using: &random) { damage.append(Self.damage(&bytes, &random)) }
        let cuts = (0..<Int.random(in: 0...3, using: &random)).map { _ in Int.random(in: 0...bytes.count, using: &random) }.sorted()
        var finish: Finish = [.end, .end, .end, .end, .wait, .wait, .wait, .wait, .wait, .cut].randomElement(using: &random) ?? .end
        // nginx takes a client that finishes sending for one that has gone away.
        if target.isGateway, finish == .end { finish = .wait }
        return Plan(
            number: number,
            target: target,
            originals: originals,
            bytes: bytes,
            cuts: cuts,
            finish: finish,
            damage: damage.joined(separator: ", ")
        )
    }

    private func pipeline(_ target: Target, _ number: Int, _ length: Int, _ random: inout SplitMix64) -> [Original] {
        let port = stand.port(of: target)
        return (0..<length).map { index in
            // Numbers far from each other: damage to the id of one request must not turn it into another's.
            let name = Int(truncatingIfNeeded: random.next() >> 14)
            let others: [Target] =
                switch target {
                case .productHot: [.productHot, .productHot, .productRouter]
                case .orderHot: [.orderHot, .orderHot, .orderRouter, .orderAsync]
                case .gatewayProductHot: [.gatewayProductHot, .gatewayProductRouter]
                case .gatewayOrderHot: [.gatewayOrderHot, .gatewayOrderAsync]
                default: [target]
                }
            let kind = others.randomElement(using: &random) ?? target
            var draft = requests.changing(kind, name, port: port)
            switch Int.random(in: 0..<8, using: &random) {
            case 0, 1: draft = requests.reading(target, name, port: port)
            case 2: draft = draft.chunked()
            case 3: draft.lines.insert("X-Note: \(name)", at: 1)
            default: break
            }
            return Original(draft: draft, bytes: [UInt8](latin1: draft.text))
        }
    }

    /// Header lines that mean something to somebody.
    private static let oddLines = [
        "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Content-Length: 0", "Content-Length: 5", "Connection: close",
        "Connection: keep-alive",
        "Connection: upgrade", "Upgrade: h2c", "Expect: 100-continue", "Host: elsewhere.example", "Proxy-Connection: close", " folded",
        "no colon", ": empty",
        "X-Note: caf\u{E9}", "TE: trailers", "Trailer: X-Sum",
    ]
    private static let oddBytes: [UInt8] = [0, 9, 10, 11, 13, 32, 44, 48, 49, 58, 59, 127, 128, 255]

    /// Damages bytes at one place; says how.
    private static func damage(_ bytes: inout [UInt8], _ random: inout SplitMix64) -> String {
        guard !bytes.isEmpty else { return "nothing is left" }
        let at = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<9, using: &random) {
        case 0:
            bytes[at] ^= 1 << UInt8.random(in: 0...7, using: &random)
            return "bit at \(at)"
        case 1:
            bytes[at] = UInt8.random(in: 0...255, using: &random)
            return "byte at \(at)"
        case 2:
            bytes[at] = oddBytes.randomElement(using: &random) ?? 0
            return "odd byte at \(at)"
        case 3:
            bytes.insert(oddBytes.randomElement(using: &random) ?? 0, at: at)
            return "odd byte before \(at)"
        case 4:
            let end = min(bytes.count, at + Int.random(in: 1...20, using: &random))
            bytes.removeSubrange(at..<end)
            return "without \(at)..<\(end)"
        case 5:
            let end = min(bytes.count, at + Int.random(in: 1...40, using: &random))
            bytes.insert(contentsOf: Array(bytes[at..<end]), at: at)
            return "\(at)..<\(end) twice"
        case 6:
            bytes.removeSubrange(at...)
            return "ends at \(at)"
        default:
            let line = oddLines.randomElement(using: &random) ?? ""
            let ends = bytes.indices.dropLast().filter { bytes[$0] == 13 && bytes[$0 + 1] == 10 }
            let end = (ends.randomElement(using: &random) ?? at) + 2
            bytes.insert(contentsOf: [UInt8](latin1: line + "\r\n"), at: min(end, bytes.count))
            return "\"\(line.shown())\" at \(end)"
        }
    }

    /// Whole requests, cut in two at every so many bytes.
    func splits() -> [Plan] {
        var plans: [Plan] = []
        for target in Self.targets.dropLast() {
            let shape: [Target] =
                switch target {
                case .productHot: [.productHot, .productRouter, .productHot]
                case .orderHot: [.orderHot, .orderRouter, .orderHot]
                case .gatewayProductHot: [.gatewayProductHot, .gatewayProductRouter, .gatewayProductHot]
                default: [.gatewayOrderHot, .gatewayOrderAsync, .gatewayOrderHot]
                }
            var cut = 1
            while true {
                let number = 2_000_000 + plans.count
                let originals = shape.enumerated().map { index, kind in
                    let draft = requests.changing(kind, 30_000_000 + number * 8 + index, port: stand.port(of: target))
                    return Original(draft: draft, bytes: [UInt8](latin1: draft.text))
                }
                let bytes = originals.flatMap(\.bytes)
                if cut >= bytes.count { break }
                plans.append(
                    Plan(
                        number: number,
                        target: target,
                        originals: originals,
                        bytes: bytes,
                        cuts: [cut],
                        finish: .wait,
                        damage: "split at \(cut)"
                    )
                )
                cut += splitStride
            }
        }
        return plans
    }

    // MARK: Performing

    private func perform(_ plan: Plan) -> Seen {
        var seen = Seen()
        do {
            let connection = try Connection(port: stand.port(of: plan.target))
            defer { connection.close() }
            var reader = AnswerReader(methods: RequestFraming.read(plan.bytes).compactMap(\.method))
            func read(until deadline: ContinuousClock.Instant, enough: Int = .max) {
                while !seen.hasEnded, seen.answers.count < enough {
                    switch connection.receive(until: deadline) {
                    case .bytes(let bytes):
                        reader.append(bytes)
                        do throws(AnswerFault) {
                            while let answer = try reader.next() { if !answer.isInterim { seen.answers.append(answer) } }
                        } catch { seen.fault = seen.fault ?? error }
                    case .end, .reset:
                        seen.hasEnded = true
                        do throws(AnswerFault) {
                            if seen.fault == nil, let last = try reader.finish() { seen.answers.append(last) }
                        } catch { seen.fault = error }
                    case .nothing: return
                    }
                }
            }
            var from = 0
            for cut in plan.cuts + [plan.bytes.count] {
                connection.send(plan.bytes[from..<cut], until: .now + patience)
                from = cut
                if cut < plan.bytes.count { read(until: .now + .milliseconds(2)) }
            }
            switch plan.finish {
            case .cut:
                connection.reset()
                seen.hasEnded = true
                return seen
            case .wait:
                let expected = Self.answersOwed(plan.bytes)
                if expected.count > 0 { read(until: .now + patience, enough: expected.count) }
                if expected.isDoubtful { read(until: .now + .milliseconds(150)) }
                seen.isClosedEarly = seen.hasEnded
                // What is left comes, or the connection ends, when the client has finished.
                connection.finishSending()
            case .end: connection.finishSending()
            }
            read(until: .now + patience * 2)
        } catch {
            seen.failure = "\(error)"
        }
        return seen
    }

    /// Answers that must come before the client has finished sending, and whether there may be more.
    private static func answersOwed(_ bytes: [UInt8]) -> (count: Int, isDoubtful: Bool) {
        var count = 0
        for element in RequestFraming.read(bytes) {
            switch element {
            case .whole, .refused: count += 1
            case .doubtful: return (count, true)
            case .incomplete: break
            }
        }
        return (count, false)
    }

    // MARK: Judging

    /// What must not have happened. Pure.
    static func judge(_ plan: Plan, _ seen: Seen, _ counts: [String: Int]) -> [Violation] {
        var found: [Violation] = []
        func note(_ rule: Violation.Rule, _ text: String) {
            let statuses = seen.answers.map { "\($0.status)" + ($0.announcesClose ? "+close" : "") }.joined(separator: " ")
            found.append(
                Violation(
                    part: "fuzz",
                    subject: "\(plan.number) \(plan.damage.isEmpty ? "undamaged" : plan.damage)",
                    place: plan.target.name,
                    rule: rule,
                    text: "\(text) (\(statuses)\(seen.hasEnded ? "" : ", open"))"
                )
            )
        }
        if let failure = seen.failure { note(.noAnswer, failure) }
        let elements = RequestFraming.read(plan.bytes)
        for original in plan.originals {
            guard let effect = original.draft.effect, counts[effect, default: 0] > 1 else { continue }
            note(.executedTwice, "\(original.draft.id) was carried out \(counts[effect, default: 0]) times")
        }
        if plan.finish == .cut || seen.failure != nil { return found }
        // nginx takes some garbage for HTTP/0.9, which had answers without a head.
        let isPlain = if case .notHTTP? = seen.fault { plan.target.isGateway } else { false }
        if let fault = seen.fault, !isPlain { note(.malformedAnswer, "\(fault)") }
        for (rule, text) in Judge.faults(of: seen.answers, methods: elements.compactMap(\.method)) { note(rule, text) }
        if !seen.hasEnded { note(.stuck, "the connection does not end when the client does") }
        if seen.fault != nil { return found }

        // The original that stands unchanged at this place; nil if none does.
        func original(at range: Range<Int>) -> Original? { plan.originals.first { $0.bytes.elementsEqual(plan.bytes[range]) } }
        var answers = seen.answers[...]
        var isOver = false
        var isDoubtful = false
        var answered: Set<String> = []
        walk: for element in elements {
            if isOver { break }
            switch element {
            case .whole(let range, let request):
                let intact = original(at: range)
                guard let answer = answers.popFirst() else {
                    note(.stuck, "\(intact?.draft.id ?? "a request") at byte \(range.lowerBound) is not answered")
                    isOver = true
                    break walk
                }
                if let intact, request.fault == nil {
                    if !answer.isSuccess { note(.outcome, "\(intact.draft.id) is as it was, and is answered \(answer.status)") }
                    if answer.isSuccess, answer.requestID != intact.draft.id {
                        note(.order, "the answer to \(intact.draft.id) is \(answer.requestID ?? "nobody")'s")
                    }
                    if answer.isSuccess { answered.insert(intact.draft.id) }
                }
                if let fault = request.fault, answer.isSuccess { note(.outcome, "\(fault) is answered \(answer.status)") }
                if request.isLast, !answer.announcesClose { note(.leftOpen, "the last request is answered without Connection: close") }
                isOver = answer.announcesClose || request.isLast
            case .refused(_, let why, let bodyOf):
                if let answer = answers.popFirst() {
                    let isRead = bodyOf == "GET" || bodyOf == "HEAD"
                    if answer.isSuccess, !isRead { note(.outcome, "\(why) is answered \(answer.status)") }
                    // A server that answers before the body has come finds out later what is wrong with the body. The gateway does so with requests that it
                    // refuses itself.
                    if !answer.isSuccess, !answer.announcesClose, bodyOf == nil, !plan.target.isGateway {
                        note(.unannouncedClose, "\(why) is refused, and the connection goes on")
                    }
                } else {
                    note(.noAnswer, "\(why) is not answered")
                }
                isOver = true
            case .doubtful: isDoubtful = true
            case .incomplete(_, let bodyOf):
                // Part of a request may be refused once the client has finished sending, and a read may be answered before its body has come.
                if let answer = answers.popFirst(), answer.isSuccess, bodyOf != "GET", bodyOf != "HEAD" {
                    note(.outcome, "part of a request is answered \(answer.status)")
                }
                isOver = true
            }
        }
        if isDoubtful { for answer in answers { if answer.isSuccess, let id = answer.requestID { answered.insert(id) } } }
        if !isDoubtful, !answers.isEmpty { note(.order, "\(answers.count) answers to nothing that was asked") }
        for original in plan.originals {
            guard let effect = original.draft.effect else { continue }
            let isIntact = elements.contains { element in
                if case .whole(let range, _) = element { original.bytes.elementsEqual(plan.bytes[range]) } else { false }
            }
            let count = counts[effect, default: 0]
            if answered.contains(original.draft.id), count == 0, isIntact {
                note(.answeredNotExecuted, "\(original.draft.id) was answered with success and not carried out")
            }
            if !answered.contains(original.draft.id), count > 0, isIntact || (!isDoubtful && Self.isSwallowed(original, plan, elements)) {
                note(.executedUnanswered, "\(original.draft.id) was carried out and not answered")
            }
        }
        return found
    }

    /// Whether an original is there, byte for byte, within another element.
    private static func isSwallowed(_ original: Original, _ plan: Plan, _ elements: [RequestFraming.Element]) -> Bool {
        for case .whole(let range, _) in elements where range.count > original.bytes.count {
            let bytes = plan.bytes[range]
            for start in range.lowerBound...(range.upperBound - original.bytes.count)
            where bytes[start] == original.bytes[0] && bytes[start..<start + original.bytes.count].elementsEqual(original.bytes) {
                return true
            }
        }
        return false
    }

    func run(_ effects: EffectReader) async throws -> PartReport {
        let began = ContinuousClock.now
        var report = PartReport(name: "fuzz and splits")
        let plans = splits() + (0..<count).map { plan($0) }
        let seen = await Workers.map(plans, workers: 6) { perform($0) }
        let counts = try await effects.settled()
        for (plan, seen) in zip(plans, seen) {
            report.cases += 1
            report.answered += seen.answers.filter(\.isSuccess).count
            report.refused += seen.answers.filter { !$0.isSuccess }.count
            if seen.isClosedEarly { report.closed += 1 }
            report.violations += Self.judge(plan, seen, counts)
        }
        report.notes.append("seed \(seed): \(plans.count - count) splits, \(count) damaged pipelines; answers are counted, not connections")
        report.took = ContinuousClock.now - began
        return report
    }
}

extension RequestFraming.Element {
    /// The method, of a whole request.
    var method: String? {
        if case .whole(_, let request) = self { request.method } else { nil }
    }
}
