import NIOCore
import NIOEmbedded
import NIOHTTPTypes
import Testing

@testable import ServerKit

/// Answers `PATCH /hot` when it is told to, or at once.
private final class ScriptedEndpoint: HotPathEndpoint, @unchecked Sendable {
    // Used on one embedded loop, by one test.
    var answersAtOnce = true
    var waiting: [(body: String, answer: (HotPathAnswer) -> Void)] = []
    var seen: [String] = []

    func match(_ head: HotRequestHead) -> String? { head.method == .patch && head.path == "/hot" ? head.field("x-key") ?? "" : nil }

    func respond(
        to match: String,
        head: HotRequestHead,
        body: ByteBuffer,
        on eventLoop: any EventLoop,
        answer: @escaping (HotPathAnswer) -> Void
    ) {
        let text = match + "/" + String(buffer: body)
        self.seen.append(text)
        if self.answersAtOnce {
            answer(HotPathAnswer(json: Array(text.utf8)))
        } else {
            self.waiting.append((text, answer))
        }
    }

    func answerNext() {
        let (text, answer) = self.waiting.removeFirst()
        answer(HotPathAnswer(json: Array(text.utf8)))
    }
}

/// The decoder's place: notes what bytes come through.
private final class Passed: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    var bytes = ""
    var events: [String] = []
    func channelRead(context: ChannelHandlerContext, data: NIOAny) { self.bytes += String(buffer: self.unwrapInboundIn(data)) }
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) { self.events.append("\(type(of: event))") }
}

/// The socket's place: counts how often it is asked to read.
private final class Reads: ChannelOutboundHandler {
    typealias OutboundIn = ByteBuffer
    var count = 0
    func read(context: ChannelHandlerContext) { self.count += 1 }
}

private struct Bed {
    let reads = Reads()
    let channel: EmbeddedChannel
    let endpoint = ScriptedEndpoint()
    let connection = HotPathConnection()
    let passed = Passed()

    init() throws {
        self.channel = EmbeddedChannel()
        try self.channel.pipeline.syncOperations.addHandler(self.reads)
        try self.channel.pipeline.syncOperations.addHandler(
            HotPathHandler(endpoint: self.endpoint, connection: self.connection, idleTimeout: .seconds(60))
        )
        try self.channel.pipeline.syncOperations.addHandler(self.passed)
        try self.channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
    }

    func send(_ text: String) throws { try self.channel.writeInbound(ByteBuffer(string: text)) }

    /// Everything written since the last look.
    func written() throws -> String {
        var all = ""
        while let buffer = try self.channel.readOutbound(as: ByteBuffer.self) { all += String(buffer: buffer) }
        return all
    }

    /// The bodies of what was written since the last look.
    func bodies() throws -> [String] {
        try self.written().components(separatedBy: "HTTP/1.1 200 OK\r\n").dropFirst()
            .map { String($0.split(separator: "\r\n\r\n", maxSplits: 1).last ?? "") }
    }

    /// The router answers one of the requests that it has.
    func routerAnswers() { self.connection.withRouter -= 1 }
}

extension String {
    fileprivate func components(separatedBy separator: String) -> [String] {
        var parts: [String] = []
        var rest = self[...]
        while let range = rest.firstRange(of: separator) {
            parts.append(String(rest[..<range.lowerBound]))
            rest = rest[range.upperBound...]
        }
        return parts + [String(rest)]
    }
}

private func hot(_ body: String, key: String = "k", extra: String = "") -> String {
    "PATCH /hot HTTP/1.1\r\nHost: a\r\nX-Key: \(key)\r\n\(extra)Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
}
private let cold = "GET /other HTTP/1.1\r\nHost: a\r\n\r\n"

@Suite("The hot path in front of the decoder")
struct HotPathTests {
    @Test("a hot request is answered the same however its bytes are cut")
    func cuts() throws {
        let request = hot("{\"a\":1}")
        for first in 1..<request.utf8.count {
            let bed = try Bed()
            try bed.send(String(request.utf8.prefix(first))!)
            #expect(try bed.written().isEmpty)
            try bed.send(String(request.utf8.dropFirst(first))!)
            #expect(try bed.bodies() == ["k/{\"a\":1}"], "cut at \(first)")
            #expect(bed.passed.bytes.isEmpty)
        }
    }

    @Test("byte by byte, hot and other requests are told apart and nothing is lost")
    func byteByByte() throws {
        let bed = try Bed()
        for byte in hot("1") + hot("2") { try bed.send(String(byte)) }
        #expect(try bed.bodies() == ["k/1", "k/2"])
        let post = "POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        // By bytes: the line end is one character.
        for byte in post.utf8 { try bed.send(String(decoding: [byte], as: UTF8.self)) }
        bed.routerAnswers()
        try bed.send(hot("3"))
        #expect(try bed.bodies() == ["k/3"])
        #expect(bed.passed.bytes == post)
    }

    @Test("requests in one read are answered in order, the hot ones behind another's answer by the router")
    func pipelined() throws {
        let bed = try Bed()
        try bed.send(hot("1") + hot("2") + cold + hot("3"))
        #expect(try bed.bodies() == ["k/1", "k/2"])
        // The router owes an answer: what follows is its own too.
        #expect(bed.passed.bytes == cold + hot("3"))
        bed.routerAnswers()
        bed.routerAnswers()
        try bed.send(hot("4"))
        #expect(try bed.bodies() == ["k/4"])
    }

    @Test("while one is worked on the socket is read only as long as nothing waits behind it")
    func reading() throws {
        let bed = try Bed()
        bed.endpoint.answersAtOnce = false
        func asksToRead() -> Int {
            let before = bed.reads.count
            bed.channel.read()
            return bed.reads.count - before
        }
        #expect(asksToRead() == 1)
        try bed.send(hot("1"))
        #expect(asksToRead() == 1, "nothing waits")
        try bed.send(hot("2"))
        #expect(asksToRead() == 0, "the second waits")
        #expect(asksToRead() == 0)
        let held = bed.reads.count
        bed.endpoint.answerNext()
        #expect(bed.reads.count == held, "the second is worked on; it reads when it is answered")
        bed.endpoint.answerNext()
        #expect(bed.reads.count == held + 1, "what was held is asked for")
    }

    @Test("while one is worked on the next waits, unread beyond what has come")
    func backpressure() throws {
        let bed = try Bed()
        bed.endpoint.answersAtOnce = false
        try bed.send(hot("1") + hot("2") + cold)
        #expect(bed.endpoint.seen == ["k/1"])
        try bed.send(hot("3"))
        #expect(bed.endpoint.seen == ["k/1"])
        bed.endpoint.answerNext()
        #expect(bed.endpoint.seen == ["k/1", "k/2"])
        bed.endpoint.answerNext()
        #expect(try bed.bodies() == ["k/1", "k/2"])
        #expect(bed.passed.bytes == cold + hot("3"))
        let other = try Bed()
        other.endpoint.answersAtOnce = false
        try other.send(hot("1"))
        for _ in 0..<5 { try? other.send(String(repeating: "x", count: 64 * 1024)) }
        #expect(!other.channel.isActive, "more than the bound closes the connection")
    }

    @Test(
        "what two readers could read in two ways is the decoder's, with all that follows",
        arguments: [
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\nContent-Length: 1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\nHost: a\nContent-Length: 1\n\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\nContent-Length: 1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nX: a\u{0}b\r\nContent-Length: 1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nContent-Length: 1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 1\r\n\r\n1",
            "PATCH /hot HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\n\r\n1",
            "PATCH  /hot HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\n1",
            "\r\nPATCH /hot HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1",
            "PATCH /hot HTTP/1.1\r\nHost: a\r\nX: \(String(repeating: "x", count: 9000))\r\nContent-Length: 1\r\n\r\n1",
        ]
    )
    func unclear(request: String) throws {
        let bed = try Bed()
        try bed.send(request + hot("2"))
        #expect(bed.endpoint.seen.isEmpty)
        #expect(bed.passed.bytes == request + hot("2"))
        #expect(try bed.written().isEmpty)
    }

    @Test("a body beyond the bound is the router's, and the request after it is looked at again")
    func largeBody() throws {
        let bed = try Bed()
        let large = hot(String(repeating: "x", count: 4097))
        try bed.send(large)
        #expect(bed.passed.bytes == large)
        bed.routerAnswers()
        try bed.send(hot(String(repeating: "x", count: 4096)))
        #expect(bed.endpoint.seen.count == 1)
    }

    @Test("a stopping server answers what it works on, says that it closes, and only then tells the rest of the pipeline")
    func quiescing() throws {
        let bed = try Bed()
        bed.endpoint.answersAtOnce = false
        try bed.send(hot("1"))
        bed.channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
        #expect(bed.passed.events.isEmpty)
        bed.endpoint.answerNext()
        #expect(try bed.written().contains("\r\nConnection: close\r\n"))
        #expect(bed.passed.events == ["ChannelShouldQuiesceEvent"])
    }

    @Test("a close that comes while a request is worked on waits for the answer")
    func closeWhileWorking() throws {
        let bed = try Bed()
        bed.endpoint.answersAtOnce = false
        try bed.send(hot("1"))
        bed.channel.close(promise: nil)
        #expect(bed.channel.isActive)
        bed.endpoint.answerNext()
        #expect(try bed.bodies() == ["k/1"])
        #expect(!bed.channel.isActive)
    }

    @Test("the answer has the request's id, an error the language and format that were asked for, and no value begins a line")
    func head() throws {
        let bed = try Bed()
        try bed.send(hot("1", extra: "x-request-id: r-1\r\n"))
        let answer = try bed.written()
        #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\nDate: "))
        #expect(answer.contains("\r\nX-Request-Id: r-1\r\n"))
        guard
            case .head(let head, _, _) = HotRequestHead.read(
                ByteBuffer(
                    string:
                        "POST /a HTTP/1.1\r\nHOST: a\r\nAccept: text/html\r\naccept: application/problem+json\r\nAccept-Language:ko\r\n\r\n"
                )
            )
        else { throw Unread() }
        #expect(head.field("accept") == "text/html, application/problem+json")
        #expect(head.field("missing") == nil)
        let error = HotPathAnswer(APIError(.insufficientStock), to: head)
        #expect(error.lines.contains("Content-Type: application/problem+json\r\nContent-Language: ko\r\n"))
        #expect(error.status.code == 400)
        var injected = HotPathAnswer(json: [])
        injected.add(.location, "/a\r\nSet-Cookie: b")
        #expect(injected.lines.hasSuffix("Location: /aSet-Cookie: b\r\n"))
    }

    private struct Unread: Error {}
}
