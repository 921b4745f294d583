import APIErrors
import HotPath
import HTTPTypes
import NIOCore
import NIOEmbedded
import NIOHTTPTypes
import ServerMetrics
import StockContract
import Testing

@testable import ServerKit

@Suite("The front door")
struct FrontDoorTests {
    @Test("hot and other requests on one connection are answered in the order they came")
    func order() throws {
        let bed = try FrontDoorBed()
        bed.endpoint.answersAtOnce = false
        bed.router.answersAtOnce = false
        try bed.send(hot("1") + other("2") + hot("3") + hot("4") + other("5"))
        #expect(bed.endpoint.waiting.map(\.text) == ["1"])
        #expect(bed.router.bodies.isEmpty, "one at a time")
        bed.endpoint.answerNext()
        #expect(bed.router.bodies == ["2"])
        bed.router.answerNext()
        bed.endpoint.answerNext()
        bed.endpoint.answerNext()
        bed.router.answerNext()
        #expect(bed.bodies() == ["1", "2", "3", "4", "5"])
        #expect(!bed.isEnded)
    }

    @Test("a long row of hot requests in one packet is answered without the stack growing")
    func manyInOnePacket() throws {
        let bed = try FrontDoorBed()
        try bed.send((0..<5_000).map { hot(String($0)) }.joined())
        #expect(bed.bodies() == (0..<5_000).map(String.init))
    }

    @Test("the head that the router gets says nothing of the connection, and has the request's id")
    func routerHead() throws {
        let bed = try FrontDoorBed()
        try bed.send(
            other(
                "1",
                extra:
                    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nProxy-Connection: keep-alive\r\n"
                    + "TE: trailers\r\nX-Request-Id: r-1\r\nAccept: a\r\naccept: b\r\n"
            )
        )
        try bed.send(other("2", extra: "X-Request-Id: a b\r\n"))
        let first = bed.router.heads[0]
        #expect(first.authority == "a" && first.path == "/o" && first.method == .post)
        #expect(
            first.headerFields.map { "\($0.name.rawName): \($0.value)" } == [
                "Accept: a", "accept: b", "Content-Length: 1", "X-Request-Id: r-1",
            ]
        )
        let answers = bed.answers()
        // The scripted router gives no id of its own: the door does.
        #expect(answers[0]["x-request-id"] == "r-1")
        #expect(answers[1]["x-request-id"] == bed.router.heads[1].headerFields[.requestID])
        #expect(answers[1]["x-request-id"]?.utf8.count == 18)
        #expect(!bed.isEnded, "an upgrade that is not taken leaves the connection as it was")
    }

    @Test(
        "the hot path is told whether a request comes from this machine",
        arguments: [
            ("127.0.0.1", true), ("127.9.9.9", true), ("::1", true), ("10.0.0.1", false), ("2001:db8::1", false),
            ("::ffff:10.0.0.1", false),
        ]
    )
    func peers(peer: String, isLocal: Bool) throws {
        let bed = try FrontDoorBed(peer: peer)
        try bed.send(hot("1"))
        #expect(bed.endpoint.wasFromLoopback == isLocal)
    }

    @Test("an answer has the request's id, the length and the date, and no value begins a line of its own")
    func hotAnswer() throws {
        let bed = try FrontDoorBed()
        try bed.send(hot("1", extra: "x-request-id: r-1\r\n") + hot("2"))
        let answers = bed.answers()
        #expect(answers[0].fields.map(\.name) == ["content-type", "content-length", "date", "x-request-id"])
        #expect(answers[0]["x-request-id"] == "r-1")
        let made = try #require(answers[1]["x-request-id"])
        #expect(made.hasSuffix("-2") && made.utf8.count == 18)
        guard
            case .head(let head) = RequestHead.read(
                ByteBuffer(string: "POST /a HTTP/1.1\r\nHost: a\r\naccept: application/problem+json\r\nAccept-Language:ko\r\n\r\n")
            )
        else { throw Unread() }
        let error = HotPathAnswer(APIError(.insufficientStock), to: head)
        #expect(error.lines.contains("Content-Type: application/problem+json\r\nContent-Language: ko\r\n"))
        #expect(error.status.code == 400)
        var injected = HotPathAnswer(json: [])
        injected.add(.location, "/a\r\nSet-Cookie: b")
        #expect(injected.lines.hasSuffix("Location: /aSet-Cookie: b\r\n"))
    }

    private struct Unread: Error {}

    @Test("answers of the router: with a length, in chunks, without a body, until the end for HTTP/1.0")
    func routerAnswers() throws {
        let bed = try FrontDoorBed()
        bed.router.answersAtOnce = false
        bed.router.givesLength = false
        try bed.send(other("abc"))
        bed.router.answerNext(fields: [.contentType: "text/plain", .connection: "close", .transferEncoding: "gzip"])
        #expect(bed.socket.takeWritten().contains("Content-Type: text/plain\r\nX-Request-Id: "))
        try bed.send(other("abc"))
        bed.router.answerNext()
        #expect(bed.answers().first?["transfer-encoding"] == "chunked")
        try bed.send("HEAD /o HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        bed.router.answerNext()
        #expect(bed.socket.takeWritten().hasSuffix("\r\n\r\n"), "the answer to a HEAD has no body")
        try bed.send(other("abc"))
        bed.router.answerNext(.noContent)
        #expect(!bed.socket.takeWritten().lowercased().contains("transfer-encoding"))
        try bed.send("POST /o HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc")
        bed.router.answerNext()
        let text = bed.socket.takeWritten()
        #expect(text.contains("Connection: close\r\n") && text.hasSuffix("\r\n\r\nabc") && bed.isEnded)
    }

    @Test("a long answer of the router goes out as it is made")
    func streaming() throws {
        let bed = try FrontDoorBed()
        bed.router.answersAtOnce = false
        try bed.send(other("1") + hot("2"))
        bed.router.write(.head(HTTPResponse(status: .ok)))
        #expect(bed.socket.takeWritten().contains("Transfer-Encoding: chunked"))
        bed.router.write(.body(ByteBuffer(string: "ab")))
        #expect(bed.socket.takeWritten() == "2\r\nab\r\n")
        bed.router.write(.body(ByteBuffer()))
        #expect(bed.socket.takeWritten() == "", "an empty part would end the body")
        bed.router.write(.end(nil))
        #expect(bed.socket.takeWritten().hasPrefix("0\r\n\r\nHTTP/1.1 200 OK\r\n"))
    }

    @Test(
        "HTTP/1.0 ends with the answer unless the client asks to go on",
        arguments: [("", true), ("Connection: keep-alive\r\n", false), ("Connection: close\r\n", true)]
    )
    func http10(line: String, ends: Bool) throws {
        for path in ["PATCH /h", "POST /o"] {
            let bed = try FrontDoorBed()
            try bed.send("\(path) HTTP/1.0\r\n\(line)Content-Length: 1\r\n\r\n1")
            let answer = try #require(bed.answers().first)
            #expect(answer.status == 200 && answer.body == "1")
            #expect(answer.saysClose == ends && bed.isEnded == ends)
            #expect(ends || answer["connection"] == "keep-alive")
        }
    }

    @Test("100 Continue comes as soon as the head is there, once, and not where the body is there already or the client speaks HTTP/1.0")
    func expectations() throws {
        for (path, body) in [
            ("PATCH /h", "Content-Length: 2\r\n\r\n|ab"), ("POST /o", "Transfer-Encoding: chunked\r\n\r\n|2\r\nab\r\n0\r\n\r\n"),
        ] {
            let parts = body.split(separator: "|")
            let head = "\(path) HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\(parts[0])"
            let bed = try FrontDoorBed()
            try bed.send(head)
            #expect(bed.socket.takeWritten() == "HTTP/1.1 100 Continue\r\n\r\n")
            try bed.send(String(parts[1].prefix(1)))
            #expect(bed.socket.takeWritten() == "")
            try bed.send(String(parts[1].dropFirst(1)))
            #expect(bed.bodies() == ["ab"])
            try bed.send(head + parts[1])
            #expect(bed.bodies() == ["ab"])
        }
        let old = try FrontDoorBed()
        try old.send("PATCH /h HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        #expect(old.socket.takeWritten() == "")
        // It is the turn of a request only when the one before it is answered.
        let bed = try FrontDoorBed()
        bed.endpoint.answersAtOnce = false
        try bed.send(hot("1") + "PATCH /h HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        #expect(bed.socket.takeWritten() == "")
        bed.endpoint.answerNext()
        #expect(bed.socket.takeWritten().hasSuffix("HTTP/1.1 100 Continue\r\n\r\n"))
    }

    @Test("a refusal has the one shape in the language and format that was asked for, and ends the connection")
    func refusals() throws {
        let bed = try FrontDoorBed()
        try bed.send(
            "POST /o HTTP/1.1\r\nHost: a\r\nAccept-Language: ko\r\nAccept: application/problem+json\r\nContent-Length: 65537\r\n\r\n"
        )
        let answer = try #require(bed.answers().first)
        #expect(answer.status == 413 && answer.saysClose && answer["content-type"] == "application/problem+json")
        #expect(answer["content-language"] == "ko" && answer.body.contains("\"error\":\"PAYLOAD_TOO_LARGE\""))
        #expect(bed.isEnded)
        #expect(bed.router.bodies.isEmpty)
        let host = try FrontDoorBed()
        try host.send("GET / HTTP/1.1\r\n\r\n" + hot("1"))
        let error = try #require(host.answers().first)
        #expect(error.status == 400 && error.body.contains(#""error":"VALIDATION_ERROR""#) && error.body.contains(#""field":"Host""#))
        #expect(error["x-request-id"] != nil)
        let connect = try FrontDoorBed()
        try connect.send("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(connect.answers().first?.status == 405)
        let head = try FrontDoorBed()
        try head.send("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
        #expect(head.socket.takeWritten().hasSuffix("\r\n\r\n"))
    }

    @Test("what still comes behind the last answer is dropped for a while, then the connection is closed")
    func lingering() throws {
        let bed = try FrontDoorBed()
        try bed.send(hot("1", extra: "Connection: close\r\n") + hot("2"))
        #expect(bed.bodies() == ["1"])
        #expect(bed.socket.isOutputClosed && bed.channel.isActive)
        for _ in 0..<100 { try bed.send(String(repeating: "x", count: 64 * 1024)) }
        #expect(bed.channel.isActive, "what is dropped is not held")
        bed.advance(.milliseconds(499))
        #expect(bed.channel.isActive)
        bed.advance(.milliseconds(2))
        #expect(!bed.channel.isActive)
        // A client that closes its half too is let go at once.
        let other = try FrontDoorBed()
        try other.send(hot("1", extra: "Connection: close\r\n"))
        other.halfClose()
        #expect(!other.channel.isActive)
    }

    @Test("a client that has closed its half gets what the socket has not taken yet", arguments: [hot("2"), other("2")])
    func endBehindHeldAnswers(last: String) throws {
        let bed = try FrontDoorBed()
        bed.socket.holdsWrites = true
        try bed.send(hot("1") + last)
        bed.halfClose()
        #expect(!bed.isEnded)
        bed.socket.takeHeld()
        #expect(bed.bodies() == ["1", "2"])
        #expect(bed.isEnded)
    }

    @Test("a server that asks its clients to go elsewhere answers, and ends the connection behind the answer")
    func draining() throws {
        for request in [hot("1"), other("1")] {
            let bed = try FrontDoorBed()
            try bed.send(hot("0"))
            #expect(bed.answers().first?.saysClose == false)
            bed.drain.begin()
            try bed.send(request)
            #expect(bed.answers().first?.saysClose == true)
            #expect(bed.isEnded)
        }
    }

    @Test(
        "a request that was on its way when the server stopped is answered, and the connection ends then; one without a request ends after the grace"
    )
    func stopIdle() throws {
        var times = ConnectionTimes()
        times.stopIdle = .milliseconds(250)
        let late = try FrontDoorBed(times: times)
        late.drain.begin()
        late.stop()
        late.advance(.milliseconds(200))
        #expect(!late.isEnded)
        try late.send(hot("1"))
        let answer = late.answers().first
        #expect(answer?.body == "1" && answer?.saysClose == true)
        #expect(late.isEnded)
        let silent = try FrontDoorBed(times: times)
        silent.stop()
        silent.advance(.milliseconds(249))
        #expect(!silent.isEnded)
        silent.advance(.milliseconds(2))
        #expect(silent.isEnded)
    }

    @Test("a stopping server waits for what is in work and for the rest of a request, each within its time")
    func stopping() throws {
        var times = ConnectionTimes()
        times.stopReading = .milliseconds(300)
        times.stopWorking = .seconds(5)
        let idle = try FrontDoorBed(times: times)
        idle.stop()
        #expect(idle.isEnded)
        let partial = try FrontDoorBed(times: times)
        try partial.send("PATCH /h HTTP/1.1\r\nHost: a")
        partial.stop()
        #expect(!partial.isEnded)
        try partial.send("\r\nContent-Length: 1\r\n\r\n1")
        #expect(partial.answers().first?.saysClose == true)
        let silent = try FrontDoorBed(times: times)
        try silent.send("PATCH /h HTTP/1.1\r\nHost: a")
        silent.stop()
        silent.advance(.milliseconds(301))
        #expect(!silent.channel.isActive)
        let late = try FrontDoorBed(times: times)
        late.endpoint.answersAtOnce = false
        try late.send("PATCH /h HTTP/1.1\r\nHost: a")
        late.stop()
        try late.send("\r\nContent-Length: 1\r\n\r\n1")
        late.advance(.seconds(4))
        #expect(!late.isEnded, "what was taken has the time of work, not the rest of the time for reading")
        late.endpoint.answerNext()
        #expect(late.bodies() == ["1"])
        let working = try FrontDoorBed(times: times)
        working.endpoint.answersAtOnce = false
        try working.send(hot("1"))
        working.stop()
        working.advance(.seconds(4))
        #expect(!working.isEnded)
        working.endpoint.answerNext()
        #expect(working.answers().first?.saysClose == true)
        let stuck = try FrontDoorBed(times: times)
        stuck.endpoint.answersAtOnce = false
        try stuck.send(hot("1"))
        stuck.stop()
        stuck.advance(.seconds(6))
        #expect(!stuck.channel.isActive)
        stuck.endpoint.answerNext()
    }

    @Test("a stop waits for a client that takes its answers, and not for one that takes nothing of them")
    func stopTaking() throws {
        var times = self.times
        times.stopWorking = .seconds(8)
        let close = hot("1", extra: "Connection: close\r\n")
        // The last answer is written; a request waits; part of one has come; a request is in work.
        for sent in [close, hot("1"), "PATCH /h HT", hot("1") + other("2")] {
            for takes in [false, true] {
                let bed = try FrontDoorBed(times: times)
                bed.router.answersAtOnce = false
                bed.unsent.bytes = 2_900
                bed.socket.holdsEnd = true
                try bed.send(hot(String(repeating: "x", count: 3_000)))
                bed.setWritable(sent.contains("POST") || sent == close)
                try bed.send(sent)
                bed.stop()
                for _ in 0..<10 {
                    bed.advance(.milliseconds(400))
                    if takes { bed.unsent.bytes -= 100 }
                }
                #expect(bed.channel.isActive == takes, "\(sent)")
                guard takes else { continue }
                // Longer than the stop's bound nobody is waited for.
                for _ in 0..<11 {
                    bed.unsent.bytes -= 100
                    bed.advance(.milliseconds(400))
                }
                #expect(!bed.channel.isActive, "\(sent)")
            }
        }
        // Who has taken everything has no more time than others.
        let half = try FrontDoorBed(times: times)
        half.unsent.bytes = 10
        try half.send(hot("1") + "PATCH /h HT")
        half.stop()
        half.advance(.milliseconds(100))
        #expect(half.channel.isActive)
        half.unsent.bytes = 0
        half.advance(.milliseconds(400))
        #expect(
            !half.channel.isActive,
            "the time to read the rest begins when everything is taken, and not when the time for taking is over"
        )
    }

    @Test("an answer that comes after the connection has gone is dropped, and one that is given twice is written once")
    func lateAnswers() throws {
        let bed = try FrontDoorBed()
        bed.endpoint.answersAtOnce = false
        try bed.send(hot("1"))
        bed.channel.close(promise: nil)
        #expect(!bed.channel.isActive, "a request in work holds no connection")
        bed.endpoint.answerNext()
        #expect(bed.socket.takeWritten() == "")
        let twice = try FrontDoorBed()
        twice.endpoint.answersAtOnce = false
        try twice.send(hot("1") + hot("2"))
        let first = twice.endpoint.waiting[0]
        twice.endpoint.answerNext()
        first.answer(HotPathAnswer(json: Array("again".utf8)))
        #expect(twice.bodies() == ["1"])
        twice.endpoint.answerNext()
        #expect(twice.bodies() == ["2"])
    }

    @Test("a router that cannot finish its answer ends the connection, so that nobody takes half of it for all")
    func brokenAnswer() throws {
        let bed = try FrontDoorBed()
        bed.router.answersAtOnce = false
        try bed.send(other("1"))
        bed.router.write(.head(HTTPResponse(status: .ok)))
        bed.channel.close(mode: .output, promise: nil)
        #expect(!bed.channel.isActive)
    }

    // MARK: Back-pressure

    @Test("while a request is in work the socket is read only as long as nothing waits behind it")
    func reading() throws {
        let bed = try FrontDoorBed()
        bed.endpoint.answersAtOnce = false
        func asksToRead() -> Int {
            let before = bed.socket.reads
            bed.channel.read()
            return bed.socket.reads - before
        }
        #expect(asksToRead() == 1)
        try bed.send(hot("1"))
        #expect(asksToRead() == 1, "nothing waits")
        try bed.send(hot("2"))
        #expect(asksToRead() == 0, "the second waits")
        let held = bed.socket.reads
        bed.endpoint.answerNext()
        #expect(bed.socket.reads == held + 1, "the second is in work and nothing waits: what was held is asked for")
    }

    @Test("a client that takes no answers gets none worked out, is not read, and goes on where it was")
    func noReader() throws {
        let bed = try FrontDoorBed()
        bed.setWritable(false)
        try bed.send((0..<1_000).map { hot(String($0)) }.joined())
        #expect(bed.socket.takeWritten() == "")
        let before = bed.socket.reads
        bed.channel.read()
        #expect(bed.socket.reads == before)
        bed.setWritable(true)
        #expect(bed.bodies() == (0..<1_000).map(String.init))
        #expect(bed.socket.reads == before + 1)
    }

    @Test("what waits is bounded whatever the socket does")
    func waitingBound() throws {
        let bed = try FrontDoorBed()
        bed.endpoint.answersAtOnce = false
        try bed.send(hot("1"))
        for _ in 0..<17 { try? bed.send(String(repeating: "x", count: 64 * 1024)) }
        #expect(!bed.channel.isActive)
    }

    @Test("what a client has sent before takes no memory, also of one that always has something waiting")
    func waitingMemory() throws {
        let bed = try FrontDoorBed()
        bed.endpoint.answersAtOnce = false
        let request = hot(String(repeating: "x", count: 1_000))
        try bed.send(request + request)
        for _ in 0..<5_000 {
            try bed.send(request)
            bed.endpoint.answerNext()
        }
        #expect(bed.door.waitingCapacity <= 64 * 1024)
    }

    // MARK: Time

    private var times: ConnectionTimes {
        var times = ConnectionTimes()
        (times.request, times.answer, times.idle) = (.seconds(30), .seconds(30), .seconds(75))
        return times
    }

    @Test("a head, and a body, that does not come within its time is refused and the connection ends", arguments: [true, false])
    func slowRequests(isHead: Bool) throws {
        let bed = try FrontDoorBed(times: self.times)
        let request = Array(hot(String(repeating: "x", count: 100)).utf8)
        try bed.send(String(decoding: request.prefix(isHead ? 20 : 100), as: UTF8.self))
        for byte in request[(isHead ? 20 : 100)...].prefix(26) {
            bed.advance(.seconds(1))
            #expect(!bed.isEnded)
            try bed.send(String(decoding: [byte], as: UTF8.self))
        }
        bed.advance(.seconds(4))
        let answer = try #require(bed.answers().first)
        #expect(answer.status == 408 && answer.body.contains("\"error\":\"REQUEST_TIMEOUT\"") && answer.saysClose)
        #expect(bed.isEnded)
    }

    @Test("a connection that keeps asking is kept, however long; one that does not is closed")
    func idle() throws {
        let bed = try FrontDoorBed(times: self.times)
        for round in 0..<20 {
            bed.advance(.seconds(60))
            try bed.send(round.isMultiple(of: 2) ? hot("1") : other("1"))
            #expect(bed.bodies() == ["1"])
        }
        bed.advance(.seconds(65))
        #expect(bed.channel.isActive)
        bed.advance(.seconds(11))
        #expect(!bed.channel.isActive)
        let silent = try FrontDoorBed(times: self.times)
        silent.advance(.seconds(76))
        #expect(!silent.channel.isActive)
    }

    @Test("empty lines alone are no way to stay")
    func emptyLines() throws {
        let bed = try FrontDoorBed(times: self.times)
        try bed.send("\r\n\r\n")
        bed.advance(.seconds(31))
        #expect(!bed.channel.isActive && bed.answers().isEmpty)
        let answered = try FrontDoorBed(times: self.times)
        try answered.send(hot("1") + "\r\n")
        answered.halfClose()
        #expect(answered.bodies() == ["1"], "a line end behind a body is nobody's request")
    }

    @Test("a request in work is nobody's idleness")
    func longWork() throws {
        let bed = try FrontDoorBed(times: self.times)
        bed.endpoint.answersAtOnce = false
        try bed.send(hot("1"))
        bed.advance(.hours(1))
        #expect(bed.channel.isActive)
        bed.endpoint.answerNext()
        #expect(bed.bodies() == ["1"])
    }

    @Test("a client that takes nothing of its answer for too long is let go; one that takes a little is kept")
    func slowReaders() throws {
        let bed = try FrontDoorBed(times: self.times)
        try bed.send(hot(String(repeating: "x", count: 1_000)))
        for rest in stride(from: 900, to: 100, by: -100) {
            bed.unsent.bytes = rest
            bed.advance(.seconds(20))
            #expect(bed.channel.isActive)
        }
        bed.advance(.seconds(25))
        #expect(!bed.channel.isActive)
        // Also behind the last answer.
        let ending = try FrontDoorBed(times: self.times)
        ending.unsent.bytes = 10
        try ending.send(hot("1"))
        ending.advance(.seconds(26))
        #expect(ending.channel.isActive)
        ending.advance(.seconds(8))
        #expect(!ending.channel.isActive)
    }

    @Test("what the door refused and whom it closed is counted")
    func metrics() throws {
        let registry = MetricsRegistry()
        let metrics = FrontDoorMetrics(registry, port: "public")
        let bed = try FrontDoorBed(metrics: metrics)
        try bed.send("GET / HTTP/1.1\r\n\r\n")
        let silent = try FrontDoorBed(times: self.times, metrics: metrics)
        silent.advance(.seconds(76))
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        #expect(text.contains(#"stockgate_http_requests_refused_total{port="public",reason="host"} 1"#))
        #expect(text.contains(#"stockgate_http_connections_timed_out_total{port="public",waited_for="idle"} 1"#))
    }
}

@Suite("Bounds of connections")
struct ConnectionLimitsTests {
    private func address(_ text: String) throws -> SocketAddress { try SocketAddress(ipAddress: text, port: 1) }

    @Test("so many in all, so many of an address, and a few more for what must be answered")
    func bounds() throws {
        let registry = MetricsRegistry()
        let limits = ConnectionLimits(
            .init(maximum: 5, maximumPerAddress: 3, reserve: 2, reservedPaths: ["/livez": false]),
            metrics: FrontDoorMetrics(registry, port: "public")
        )
        let (one, two, three) = (try address("10.0.0.1"), try address("10.0.0.2"), try address("10.0.0.3"))
        let reserve = ConnectionPass.reserve(["/livez": false])
        for _ in 0..<3 { #expect(limits.enter(one) == .ordinary) }
        #expect(limits.enter(two) == .ordinary)
        #expect(limits.enter(two) == .ordinary)
        // Now the server is full.
        #expect(limits.enter(two) == reserve)
        #expect(limits.enter(three) == reserve)
        #expect(limits.enter(three) == nil)
        #expect(limits.count == 7)
        limits.leave(one, .ordinary)
        #expect(limits.enter(three) == reserve)
        for _ in 0..<2 { limits.leave(one, .ordinary) }
        limits.leave(two, .ordinary)
        #expect(limits.enter(one) == .ordinary)
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        #expect(text.contains(#"stockgate_http_connections_refused_total{port="public",full="total"} 1"#))
        #expect(text.contains(#"stockgate_http_connections_refused_total{port="public",full="address"} 0"#))
        #expect(text.contains(#"stockgate_http_connections_reserved_total{port="public"} 3"#))
    }

    @Test(
        "an address that is full is still answered what must be answered, on places that are counted apart, and takes no more of the reserve than its part"
    )
    func fullAddress() throws {
        let registry = MetricsRegistry()
        let limits = ConnectionLimits(
            .init(maximum: 8, maximumPerAddress: 3, reserve: 4, reservePerAddress: 2, reservedPaths: ["/livez": false]),
            metrics: FrontDoorMetrics(registry, port: "public")
        )
        let (one, two, three) = (try address("10.0.0.1"), try address("10.0.0.2"), try address("10.0.0.3"))
        let reserve = ConnectionPass.reserve(["/livez": false])
        for _ in 0..<3 { #expect(limits.enter(one) == .ordinary) }
        // The address is full, the server is not.
        for _ in 0..<2 { #expect(limits.enter(one) == reserve) }
        #expect(limits.enter(one) == nil)
        // A place of the reserve that is given back is no ordinary one.
        limits.leave(one, reserve)
        #expect(limits.enter(one) == reserve)
        #expect(limits.enter(one) == nil)
        limits.leave(one, .ordinary)
        #expect(limits.enter(one) == .ordinary)
        // Of a server that is full nobody takes more than a part of the reserve either.
        for _ in 0..<3 { #expect(limits.enter(two) == .ordinary) }
        for _ in 0..<2 { #expect(limits.enter(two) == reserve) }
        #expect(limits.count == 10)
        #expect(limits.enter(two) == nil)
        for _ in 0..<2 { #expect(limits.enter(three) == reserve) }
        #expect(limits.enter(try address("10.0.0.4")) == nil)
        #expect(limits.count == 12)
        for _ in 0..<3 {
            limits.leave(one, .ordinary)
            limits.leave(two, .ordinary)
        }
        for address in [one, two, three] { for _ in 0..<2 { limits.leave(address, reserve) } }
        #expect(limits.count == 0)
        for _ in 0..<3 { #expect(limits.enter(one) == .ordinary) }
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        #expect(text.contains(#"stockgate_http_connections_refused_total{port="public",full="address"} 3"#))
        #expect(text.contains(#"stockgate_http_connections_refused_total{port="public",full="total"} 1"#))
        #expect(text.contains(#"stockgate_http_connections_reserved_total{port="public"} 7"#))
    }

    @Test("an IPv6 client is its /64; an IPv4 address is the same in both notations")
    func keys() throws {
        let key = { (text: String) in ConnectionLimits.key(try SocketAddress(ipAddress: text, port: 1)) }
        #expect(try key("2001:db8:1:2::1") == key("2001:db8:1:2:ffff::9"))
        #expect(try key("2001:db8:1:2::1") != key("2001:db8:1:3::1"))
        #expect(try key("::ffff:10.0.0.1") == key("10.0.0.1"))
    }

    @Test("a connection of the reserve is answered what is reserved, and nothing else; it does not stay for nothing")
    func reserve() throws {
        let pass = ConnectionPass.reserve(["/livez": false, "/h": true])
        let bed = try FrontDoorBed(pass: pass)
        try bed.send(hot("1") + hot("2"))
        #expect(bed.bodies() == ["1", "2"])
        #expect(!bed.isEnded)
        try bed.send(other("3"))
        let refused = try #require(bed.answers().first)
        #expect(refused.status == 503 && refused["retry-after"] == "1" && refused.saysClose && bed.isEnded)
        let live = try FrontDoorBed(pass: pass)
        try live.send("GET /livez?verbose HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(live.answers().first?.saysClose == true)
        let silent = try FrontDoorBed(pass: pass)
        silent.advance(.milliseconds(500))
        #expect(!silent.channel.isActive)
        // Whoever is refused by the route gives its place back, too.
        let stranger = try FrontDoorBed(pass: .reserve(["/o": true]))
        stranger.router.answersAtOnce = false
        try stranger.send(other("1"))
        stranger.router.answerNext(.unauthorized)
        #expect(stranger.answers().first?.saysClose == true)
    }
}
