import Foundation
import Synchronization

extension SlowPart {
    /// Everything that needs the servers with short times.
    func slow(_ server: ServerProcess) -> Recorder {
        // A first round fills pools and loads code, and is not measured.
        for _ in 0..<20 { _ = try? Caller(port: server.port).send(hot(server).adding("Connection: close")) }
        let together: [@Sendable (inout Recorder) -> Void] = [
            { dribbledHead(server, &$0) }, { endless(server, &$0) }, { idle(server, &$0) },
            { busy(server, pause: 0, &$0) }, { busy(server, pause: 700_000, &$0) },
            { halfCloses(server, &$0) }, { pipelined(server, &$0) },
        ]
        var recorder = Recorder(server)
        for part in Self.atOnce(
            together.count,
            { index in
                var part = Recorder(server)
                together[index](&part)
                return part
            }
        ) { recorder.join(part) }
        unread(server, &recorder)
        many(server, &recorder)
        resets(server, &recorder)
        return recorder
    }

    private func dribbledHead(_ server: ServerProcess, _ recorder: inout Recorder) {
        recorder.attempt("a hot request byte by byte, in time") { recorder in
            let connection = try Connection(port: server.port)
            let draft = hot(server)
            for byte in [UInt8](latin1: draft.text) {
                connection.send([byte], until: .now + .seconds(1))
                usleep(2_000)
            }
            let (answers, _) = try answers(connection, 1, within: answerTime)
            recorder.check("a hot request byte by byte, in time", answers)
            guard answers.first?.isSuccess == true else {
                throw Caller.Failure(description: "\(answers.first.map { "\($0.status)" } ?? "no answer")")
            }
        }
    }

    /// Requests that never become whole: each must be ended when its time is up, with a refusal in the one shape or without a word.
    private func endless(_ server: ServerProcess, _ recorder: inout Recorder) {
        let whole = hot(server).text
        // Shorter than IDLE_TIMEOUT, so that another bound than that one must end these connections.
        let bound = Self.requestTimeout + .seconds(1) + size.slack
        let router = other(server).text
        let halfHead = String(whole.unicodeScalars.prefix(70))
        let noBody = String(whole.unicodeScalars.dropLast(10))
        let dribbles: [(String, String, String)] = [
            ("half a head, then silence", halfHead, ""), ("half a body, then silence", noBody, ""),
            ("a head that never ends, a byte every 100 ms", halfHead, "a"),
            ("a body that never ends, a byte every 100 ms", noBody.with(length: 100), " "),
            ("half a chunked body, then silence", hot(server).chunked(body: "5\r\n{\"ord").text, ""),
            ("silence behind another request", router + halfHead, ""), ("nothing at all but a line end", "\r\n", ""),
        ]
        let faults = Self.atOnce(dribbles.count) { index in
            Self.neverEnding(
                port: server.port,
                dribbles[index].1,
                dribbles[index].2,
                after: Self.requestTimeout - .milliseconds(200),
                before: bound
            )
        }
        for ((name, _, _), why) in zip(dribbles, faults) {
            recorder.cases += 1
            if let why { recorder.fail(name, .bound, why) } else { recorder.closed += 1 }
        }
    }

    /// So many things, each on a thread of its own.
    static func atOnce<Value: Sendable>(_ count: Int, _ work: @escaping @Sendable (Int) -> Value) -> [Value] {
        let values = Mutex<[Int: Value]>([:])
        let group = DispatchGroup()
        for index in 0..<count {
            group.enter()
            Thread.detachNewThread {
                defer { group.leave() }
                let value = work(index)
                values.withLock { $0[index] = value }
            }
        }
        group.wait()
        return values.withLock { values in (0..<count).compactMap { values[$0] } }
    }

    /// Why a connection with part of a request was not ended in time; nil if it was.
    static func neverEnding(port: Int, _ begin: String, _ drip: String, after least: Duration, before bound: Duration) -> String? {
        do {
            let connection = try Connection(port: port)
            let began = ContinuousClock.now
            connection.send(begin)
            var reader = AnswerReader()
            while ContinuousClock.now - began < bound {
                switch connection.receive(until: .now + .milliseconds(100)) {
                case .bytes(let bytes):
                    reader.append(bytes)
                    while let answer = try reader.next() {
                        if answer.status >= 400, let fault = answer.errorShapeFault { return "\(answer.status) with \(fault)" }
                        if answer.status >= 500 { return "\(answer.status)" }
                    }
                case .end, .reset:
                    let took = ContinuousClock.now - began
                    return took < least ? "ended after \(took), before its time" : nil
                case .nothing: if !drip.isEmpty { connection.send(drip) }
                }
            }
            return "still open after \(bound)"
        } catch {
            return "\(error)"
        }
    }

    /// A connection without a request is closed after its time, and not before.
    private func idle(_ server: ServerProcess, _ recorder: inout Recorder) {
        let drafts = [("idle behind a hot request", hot(server)), ("idle behind another request", other(server))]
        let latest = Self.idleTimeout + .seconds(3) + size.slack
        do {
            let connections = try drafts.map { name, draft in
                let connection = try Connection(port: server.port)
                connection.send(draft.text)
                recorder.check(name, try answers(connection, 1, within: answerTime).answers)
                return connection
            }
            let began = ContinuousClock.now
            for ((name, _), connection) in zip(drafts, connections) {
                recorder.attempt(name) { _ in
                    guard connection.ends(before: began + latest) else {
                        throw Caller.Failure(description: "not closed \(latest) after the last answer; IDLE_TIMEOUT is 6s")
                    }
                    if ContinuousClock.now - began < Self.idleTimeout - .milliseconds(700) {
                        throw Caller.Failure(description: "closed after \(ContinuousClock.now - began); IDLE_TIMEOUT is 6s")
                    }
                }
            }
        } catch {
            recorder.fail("idle", .noAnswer, "\(error)")
        }
    }

    /// A connection in use is not closed for being idle.
    private func busy(_ server: ServerProcess, pause: UInt32, _ recorder: inout Recorder) {
        // Without a pause the time is up while a request is worked on; with pauses, between two.
        let name =
            pause == 0
            ? "hot requests one after another for longer than IDLE_TIMEOUT" : "a hot request every 700 ms for longer than IDLE_TIMEOUT"
        recorder.attempt(name) { recorder in
            let connection = try Connection(port: server.port)
            let began = ContinuousClock.now
            while ContinuousClock.now - began < Self.idleTimeout + .seconds(1) {
                connection.send(hot(server).text)
                let (answers, hasEnded) = try answers(connection, 1, within: answerTime)
                guard !hasEnded, answers.first?.announcesClose != true else {
                    throw Caller.Failure(description: "closed after \(ContinuousClock.now - began) of use")
                }
                guard answers.count == 1 else { throw Caller.Failure(description: "no answer within \(answerTime)") }
                if pause > 0 { usleep(pause) }
            }
        }
    }

    /// Whoever has finished sending gets all its answers, then the end.
    private func halfCloses(_ server: ServerProcess, _ recorder: inout Recorder) {
        let (hot, other) = ({ self.hot(server).text }, { self.other(server).text })
        let chunked = { self.hot(server).chunked().text }
        let shapes: [(String, [String])] = [
            ("hot, end", [hot()]), ("other, end", [other()]), ("hot, other, end", [hot(), other()]), ("other, hot, end", [other(), hot()]),
            ("chunked, hot, end", [chunked(), hot()]), ("hot, hot, other, hot, end", [hot(), hot(), other(), hot()]),
        ]
        for (name, texts) in shapes {
            recorder.attempt(name, .stuck) { recorder in
                let connection = try Connection(port: server.port)
                connection.send(texts.joined())
                connection.finishSending()
                let (answers, _) = try answers(connection, texts.count, within: answerTime)
                recorder.check(name, answers)
                guard answers.count == texts.count else {
                    throw Caller.Failure(description: "\(answers.count) of \(texts.count) requests answered")
                }
                guard connection.ends(before: .now + .seconds(3)) else {
                    throw Caller.Failure(description: "not closed behind the last answer")
                }
            }
        }
    }

    /// Many requests at once on one connection are answered in their order.
    private func pipelined(_ server: ServerProcess, _ recorder: inout Recorder) {
        recorder.attempt("400 requests in one packet, hot and other", .order) { recorder in
            let connection = try Connection(port: server.port)
            let drafts = (0..<400).map { $0 % 5 == 4 ? other(server) : cheap(server) }
            connection.send([UInt8](latin1: drafts.map(\.text).joined())[...], until: .now + .seconds(5))
            let (answers, _) = try answers(connection, drafts.count, within: .seconds(20))
            guard answers.count == drafts.count else { throw Caller.Failure(description: "\(answers.count) of \(drafts.count) answered") }
            for (draft, answer) in zip(drafts, answers) where answer.requestID != draft.id {
                throw Caller.Failure(description: "the answer to \(draft.id) is \(answer.requestID ?? "nobody")'s")
            }
        }
    }

    /// SIGTERM with connections open that are idle, have sent half a request, take nothing of their answers, or follow events.
    func stop(_ server: ServerProcess) -> Recorder {
        var recorder = Recorder(server)
        recorder.attempt("SIGTERM") { recorder in
            let idle = try (0..<20).map { index in
                let connection = try Connection(port: server.port)
                if index % 2 == 0 {
                    connection.send(hot(server).text)
                    _ = try answers(connection, 1, within: answerTime)
                }
                return connection
            }
            let whole = hot(server).text
            let halves = try [String(whole.unicodeScalars.prefix(70)), String(whole.unicodeScalars.dropLast(10))].map { half in
                let connection = try Connection(port: server.port)
                connection.send(half)
                return connection
            }
            let nonReaders = try self.nonReaders(server)
            let events = try Connection(port: server.adminPort)
            events.send("GET /admin/circuitbreakerevents?follow=true HTTP/1.1\r\nHost: 127.0.0.1:\(server.adminPort)\r\n\r\n")
            guard case .bytes(let begun) = events.receive(until: .now + .seconds(5)) else {
                throw Caller.Failure(description: "no stream of events")
            }
            let (status, took) = server.stop(within: .seconds(30))
            recorder.notes.append("\(server.name): SIGTERM: exit status \(status.map(String.init) ?? "none") after \(took)")
            if status != 0 {
                recorder.fail(
                    "SIGTERM",
                    .bound,
                    "exit status \(status.map(String.init) ?? "none within 30 s"): \(server.lastLines.shown(limit: 300))"
                )
            }
            if took > .seconds(1) + size.slack { recorder.fail("SIGTERM", .bound, "it took \(took), at most 1 s") }
            // The server ends the stream itself: the last chunk of a chunked body.
            var stream = begun
            while case .bytes(let more) = events.receive(until: .now + .seconds(1)) { stream += more }
            if !stream.latin1.hasSuffix("0\r\n\r\n") {
                recorder.fail("SIGTERM", .stuck, "the stream of events ends with \(stream.suffix(40).latin1.shown(limit: 80))")
            }
            withExtendedLifetime((idle, halves, nonReaders)) {}
        }
        return recorder
    }

    /// Clients that ask for documents and read nothing. How much a socket takes is the kernel's: so with some of them the last answer is written and not taken, and
    /// with others the server has not come to it.
    private func nonReaders(_ server: ServerProcess) throws -> [Connection] {
        try [1, 20, 40, 60, 80].map { count in
            let connection = try Connection(port: server.port, receiveBuffer: 4_096)
            let document = documentRequest(server)
            let text = String(repeating: document.text, count: count - 1) + document.adding("Connection: close").text
            connection.send([UInt8](latin1: text)[...], until: .now + .seconds(2))
            return connection
        }
    }
}

extension String {
    /// A request's text with another `Content-Length`, so that its body is never whole.
    fileprivate func with(length: Int) -> String {
        guard let range = firstRange(of: "Content-Length: ") else { return self }
        let rest = self[range.upperBound...]
        return self[..<range.upperBound] + "\(length)" + rest.drop { $0.isNumber }
    }
}
