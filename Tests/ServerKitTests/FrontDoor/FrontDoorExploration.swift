// Every short conversation with the front door, and many long ones, against a description of what has to come of it.
//
// The description knows nothing of the door's states. It says of a row of actions: which requests a client has sent whole, in order, before it spoiled or ended
// the conversation; these are carried out once each, in that order, and answered in that order; none after an answer that said `Connection: close`, none after a
// reset; and whoever still has a connection behind all that is answered.

import NIOCore
import NIOEmbedded
import SeededRandom
import Testing

@testable import ServerKit

/// What a client, its network, the clock or an operator does.
enum DoorAction: String, CaseIterable, Sendable {
    case hot
    case other
    case hotClose
    case otherClose
    case garbage
    /// Half a head now; the rest comes with the next request, or never.
    case slow
    /// The same with a head and half of its body, for the hot path.
    case slowBody
    /// The same with a head and half a chunk, for the router.
    case slowChunk
    case halfClose
    case reset
    /// The client takes no answer from here on, until all is sent.
    case noReader
    case stop
    case idle

    /// Whether a client sends bytes.
    var isBytes: Bool {
        switch self {
        case .hot, .other, .hotClose, .otherClose, .garbage, .slow, .slowBody, .slowChunk: true
        case .halfClose, .reset, .noReader, .stop, .idle: false
        }
    }

    /// Half a request, the rest of it, and the body that it then has; nil for what is sent whole.
    func half(_ number: Int) -> (begin: String, rest: String, body: String)? {
        switch self {
        case .slow: ("GET /s HTTP/1.1\r\nHost: a\r", "\n\r\n", "")
        case .slowBody:
            ("PATCH /h HTTP/1.1\r\nHost: a\r\nContent-Length: \("b\(number)x".utf8.count)\r\n\r\nb\(number)", "x", "b\(number)x")
        case .slowChunk:
            (
                "POST /o HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\("c\(number)x".utf8.count)\r\nc\(number)",
                "x\r\n0\r\n\r\n", "c\(number)x"
            )
        default: nil
        }
    }
}

/// One conversation.
struct DoorConversation {
    let actions: [DoorAction]
    /// How the bytes between two actions that are not bytes are cut: nil for one packet, or where the second one begins.
    var cut: Int?
    /// Each byte in a packet of its own.
    var isByteByByte = false
    /// Whether answers come when all is sent, instead of at once.
    var answersLate = false
    /// Whether a stop goes as where there is a lame-duck time: answers say `Connection: close`, and an idle connection stays for a grace.
    var hasLameDuck = false

    private static let grace = TimeAmount.milliseconds(250)

    enum Fault: Error, CustomStringConvertible {
        case fault(String)
        var description: String { if case .fault(let text) = self { text } else { "" } }
    }

    /// Holds the conversation; throws what is wrong with it.
    func hold() throws {
        var times = ConnectionTimes()
        times.idle = .seconds(60)
        if hasLameDuck { times.stopIdle = Self.grace }
        let bed = try FrontDoorBed(times: times)
        defer { _ = try? bed.channel.finish(acceptAlreadyClosed: true) }
        var done: [String] = []
        bed.endpoint.work = { done.append($0) }
        bed.router.work = { done.append($0) }
        bed.endpoint.answersAtOnce = !answersLate
        bed.router.answersAtOnce = !answersLate

        /// Whole requests that the client sent and the server is bound to carry out.
        var owed: [String] = []
        /// Requests that it may carry out or not: the server was stopping, or not known to be alive.
        var allowed: [String] = []
        var isSpoiled = false  // No request behind this is to be carried out.
        var isRefused = false  // The refusal of garbage is owed.
        var isCut = false  // The client ended its half inside a request.
        var half: (rest: String, body: String)?
        var isHalfClosed = false
        var isReset = false
        var isStopping = false
        var wasIdle = false
        var ranOut = false
        var isReading = true
        var number = 0
        var bytes = ""

        func answerAll() {
            // Ends: each round gives an answer, and answers only lead to requests that were sent.
            while true {
                if !bed.endpoint.waiting.isEmpty {
                    bed.endpoint.answerNext()
                } else if !bed.router.waiting.isEmpty, bed.channel.isActive {
                    bed.router.answerNext()
                } else {
                    return
                }
            }
        }
        func deliver() throws {
            guard !bytes.isEmpty else { return }
            let all = Array(bytes.utf8)
            bytes = ""
            var packets: [ArraySlice<UInt8>]
            if isByteByByte {
                packets = all.indices.map { all[$0...$0] }
            } else if let cut, cut > 0, cut < all.count {
                packets = [all[..<cut], all[cut...]]
            } else {
                packets = [all[...]]
            }
            for packet in packets where bed.channel.isActive {
                try bed.channel.writeInbound(ByteBuffer(bytes: packet))
            }
        }

        for action in actions {
            // A client that sends no more, or has gone, does nothing more.
            if isReset { break }
            switch action {
            case .hot, .other, .hotClose, .otherClose, .garbage, .slow, .slowBody, .slowChunk:
                guard !isHalfClosed else { continue }
                if let begun = half {
                    // Whatever is sent, it is the rest of the slow request first.
                    bytes += begun.rest
                    half = nil
                    number += 1
                    if !isSpoiled { if isStopping || wasIdle { allowed.append(begun.body) } else { owed.append(begun.body) } }
                }
                number += 1
                let body = String(number)
                let isClose = action == .hotClose || action == .otherClose
                switch action {
                case .hot, .hotClose: bytes += ServerKitTests.hot(body, extra: isClose ? "Connection: close\r\n" : "")
                case .other, .otherClose: bytes += ServerKitTests.other(body, extra: isClose ? "Connection: close\r\n" : "")
                case .garbage: bytes += "\u{1}\r\n\r\n"
                default:
                    guard let slow = action.half(number) else { throw Fault.fault("\(action) has no half") }
                    bytes += slow.begin
                    half = (slow.rest, slow.body)
                    continue
                }
                if action == .garbage {
                    if !isSpoiled { isRefused = !isStopping && !wasIdle }
                    isSpoiled = true
                } else if !isSpoiled {
                    if isStopping || wasIdle { allowed.append(body) } else { owed.append(body) }
                    if isClose { isSpoiled = true }
                }
            case .halfClose:
                guard !isHalfClosed else { continue }
                try deliver()
                isHalfClosed = true
                isCut = half != nil && !isSpoiled && !isStopping && !wasIdle
                if bed.channel.isActive { bed.halfClose() }
            case .reset:
                try deliver()
                isReset = true
                bed.channel.pipeline.fireErrorCaught(IOError(errnoCode: 104, reason: "reset"))
                bed.channel.close(promise: nil)
            case .noReader:
                try deliver()
                isReading = false
                bed.setWritable(false)
            case .stop:
                try deliver()
                isStopping = true
                // The answer in work says that it is the last; what waits behind it is the client's to send elsewhere.
                allowed = Array(owed.dropFirst(done.count)) + allowed
                owed = Array(owed.prefix(done.count))
                if isRefused || isCut, !bed.isEnded { (isRefused, isCut) = (false, false) }
                if hasLameDuck { bed.drain.begin() }
                if bed.channel.isActive { bed.stop() }
            case .idle:
                try deliver()
                // An unanswered request, and an answer that is not taken, are no idleness.
                wasIdle = true
                // A stopping server does not wait for an answer for so long.
                ranOut = isStopping
                bed.advance(.seconds(61))
            }
        }
        try deliver()
        let doneAtReset = done.count
        if !isReading, bed.channel.isActive { bed.setWritable(true) }
        answerAll()
        // An idle connection has its grace, and no more.
        if hasLameDuck, isStopping { bed.advance(Self.grace + .milliseconds(1)) }

        let answers = bed.answers()
        // Carried out: a prefix of what was sent, in order, each once; all that was owed, unless the client had gone.
        let sent = owed + allowed
        guard done.count <= sent.count, zip(done, sent).allSatisfy(==) else { throw Fault.fault("done \(done), sent \(sent)") }
        if !isReset, !wasIdle || isReading, done.count < owed.count { throw Fault.fault("done \(done), owed \(owed)") }
        if isReset, done.count > doneAtReset { throw Fault.fault("done after the reset") }
        if isReset { return }

        // Answered: each in its order, then at most a refusal.
        let good = answers.prefix { $0.status == 200 }
        guard ranOut ? done.starts(with: good.map(\.body)) : good.map(\.body) == done else {
            throw Fault.fault("answers \(answers.map(\.body)), done \(done)")
        }
        let refusals = answers.dropFirst(good.count)
        guard refusals.count <= 1,
            refusals.allSatisfy({ [400, 408].contains($0.status) && $0.saysClose && $0.body.contains("\"error\":") })
        else {
            throw Fault.fault("refusals \(refusals)")
        }
        if isRefused || isCut, refusals.isEmpty, !wasIdle { throw Fault.fault("no refusal: \(answers)") }
        if let early = answers.dropLast().first(where: \.saysClose) { throw Fault.fault("not the last says close: \(early)") }
        if answers.contains(where: { $0["x-request-id"] == nil }) { throw Fault.fault("no request id") }
        let saidClose = answers.last?.saysClose ?? false
        if saidClose, !bed.isEnded { throw Fault.fault("said close and did not") }
        // The server ends a connection without saying so only where nobody was owed an answer: an idle one, one whose client has ended its half, a stop.
        if bed.isEnded, !saidClose, !isHalfClosed, !isStopping, !wasIdle { throw Fault.fault("closed without a word") }
        if isHalfClosed, !bed.isEnded { throw Fault.fault("open to a client that sends no more") }
        if isStopping, !bed.isEnded, half == nil { throw Fault.fault("open while the server stops") }

        // The probe: whoever still has a connection is answered.
        guard !bed.isEnded, !isHalfClosed else {
            let before = done.count
            if bed.channel.isActive { try bed.send(ServerKitTests.hot("probe")) }
            answerAll()
            if done.count > before { throw Fault.fault("done after the end") }
            // The lingering ends.
            bed.advance(.seconds(1))
            if bed.channel.isActive { throw Fault.fault("never closed") }
            return
        }
        bed.endpoint.answersAtOnce = true
        bed.router.answersAtOnce = true
        try bed.send((half?.rest ?? "") + ServerKitTests.hot("probe") + ServerKitTests.other("probe2"))
        let last = bed.bodies()
        if isStopping {
            guard last.count >= 1 else { throw Fault.fault("the rest of a request was not answered") }
        } else {
            guard last.suffix(2) == ["probe", "probe2"] else { throw Fault.fault("the probe got \(last)") }
        }
    }

    var name: String {
        let how = isByteByByte ? "byte by byte" : cut.map { "cut at \($0)" } ?? "whole"
        return
            "\(actions.map(\.rawValue).joined(separator: " ")), \(how), answers \(answersLate ? "late" : "at once")\(hasLameDuck ? ", lame duck" : "")"
    }
}

@Suite("The front door, explored")
struct FrontDoorExploration {
    /// Every row of actions up to a length.
    static func rows(upTo length: Int) -> [[DoorAction]] {
        var rows: [[DoorAction]] = [[]]
        var longest = rows
        for _ in 0..<length {
            longest = longest.flatMap { row in DoorAction.allCases.map { row + [$0] } }
            rows += longest
        }
        return rows.filter { !$0.isEmpty }
    }

    private func explore(_ rows: some Sequence<[DoorAction]>, cuts: (Int) -> [Int?]) throws -> Int {
        var held = 0
        for row in rows {
            // No action's bytes are longer; a cut beyond what is sent is the same as none and is left out.
            let longest = row.reduce(0) { $0 + ($1.isBytes ? 72 : 0) }
            for late in [false, true] {
                for cut in cuts(longest) + [nil] {
                    try hold(DoorConversation(actions: row, cut: cut, answersLate: late), &held)
                }
                try hold(DoorConversation(actions: row, isByteByByte: true, answersLate: late), &held)
            }
        }
        return held
    }

    private func hold(_ conversation: DoorConversation, _ held: inout Int) throws {
        do {
            try conversation.hold()
            held += 1
        } catch {
            Issue.record("\(conversation.name): \(error)")
            throw error
        }
    }

    @Test("every conversation of up to two actions, cut at every byte")
    func everyCut() throws {
        let held = try explore(Self.rows(upTo: 2)) { longest in Array(1..<max(1, longest)) }
        #expect(held > 10_000)
    }

    @Test("every conversation of up to four actions: whole, and byte by byte")
    func fourActions() throws {
        let held = try explore(Self.rows(upTo: 4)) { _ in [] }
        #expect(held == (13 + 169 + 2_197 + 28_561) * 4)
    }

    @Test("100,000 random conversations of up to twelve actions")
    func random() throws {
        var random = SplitMix64(seed: 20_261_127)
        for _ in 0..<100_000 {
            let count = Int.random(in: 1...12, using: &random)
            let actions = (0..<count).map { _ in
                // Mostly requests, or every conversation would end at once.
                Int.random(in: 0..<3, using: &random) > 0
                    ? [DoorAction.hot, .other, .hot, .slow, .slowBody, .slowChunk][Int.random(in: 0..<6, using: &random)]
                    : DoorAction.allCases[Int.random(in: 0..<DoorAction.allCases.count, using: &random)]
            }
            let conversation = DoorConversation(
                actions: actions,
                cut: Bool.random(using: &random) ? Int.random(in: 1..<400, using: &random) : nil,
                isByteByByte: Int.random(in: 0..<8, using: &random) == 0,
                answersLate: Bool.random(using: &random),
                hasLameDuck: Bool.random(using: &random)
            )
            var held = 0
            try hold(conversation, &held)
        }
    }
}
