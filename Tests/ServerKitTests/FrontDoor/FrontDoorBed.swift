import HotPath
import HTTPTypes
import NIOCore
import NIOEmbedded
import NIOHTTPTypes

@testable import ServerKit

/// Answers `PATCH /h` when it is told to, or at once.
final class ScriptedEndpoint: HotPathEndpoint, @unchecked Sendable {
    // Used on one embedded loop, by one test.
    var answersAtOnce = true
    var waiting: [(text: String, answer: (HotPathAnswer) -> Void)] = []
    /// Called for each request that is worked on.
    var work: (String) -> Void = { _ in }
    /// Whether the last request came from this machine, as its head says.
    private(set) var wasFromLoopback: Bool?

    func match(_ head: RequestHead) -> String? { head.method == .patch && head.path == "/h" ? head.field("x-key") ?? "" : nil }

    func respond(
        to match: String,
        head: RequestHead,
        body: ByteBuffer,
        on eventLoop: any EventLoop,
        answer: @escaping (HotPathAnswer) -> Void
    ) {
        let text = match + String(buffer: body)
        wasFromLoopback = head.isFromLoopback
        work(text)
        if answersAtOnce {
            answer(HotPathAnswer(json: Array(text.utf8)))
        } else {
            waiting.append((text, answer))
        }
    }

    func answerNext() {
        let (text, answer) = waiting.removeFirst()
        answer(HotPathAnswer(json: Array(text.utf8)))
    }
}

/// The router's place: answers with the request's body, when it is told to, or at once.
final class ScriptedRouter: ChannelInboundHandler {
    typealias InboundIn = HTTPRequestPart
    typealias OutboundOut = HTTPResponsePart

    var answersAtOnce = true
    /// Without a length an answer goes in chunks.
    var givesLength = true
    var work: (String) -> Void = { _ in }
    private(set) var heads: [HTTPRequest] = []
    private(set) var bodies: [String] = []
    private(set) var waiting: [String] = []
    private(set) var wasEnded = false
    private var body = ""
    private var context: ChannelHandlerContext?

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func channelInactive(context: ChannelHandlerContext) { wasEnded = true }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            heads.append(head)
            body = ""
        case .body(let part): body += String(buffer: part)
        case .end:
            bodies.append(body)
            work(body)
            waiting.append(body)
            if answersAtOnce { answerNext() }
        }
    }

    func answerNext(_ status: HTTPResponse.Status = .ok, fields: HTTPFields = [:]) {
        guard let context else { return }
        let text = waiting.removeFirst()
        var head = HTTPResponse(status: status, headerFields: fields)
        if givesLength { head.headerFields[.contentLength] = String(text.utf8.count) }
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(ByteBuffer(string: text))), promise: nil)
        context.write(wrapOutboundOut(.end(nil)), promise: nil)
        context.flush()
    }

    func write(_ part: HTTPResponsePart) { context?.writeAndFlush(wrapOutboundOut(part), promise: nil) }
}

/// The socket's place: counts reads, and closes halves as a socket does.
final class ScriptedSocket: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    private(set) var reads = 0
    private(set) var isOutputClosed = false
    /// Whether the end of the server's half waits behind answers that are not taken.
    var holdsEnd = false
    /// Whether the client takes nothing: what is written waits.
    var holdsWrites = false
    private var held: [(bytes: ByteBuffer, promise: EventLoopPromise<Void>?)] = []
    private var isInputClosed = false
    private(set) var written = ByteBuffer()

    func read(context: ChannelHandlerContext) { reads += 1 }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        // A write behind the end is a fault of the door, and is seen as one: nothing of it arrives.
        guard !isOutputClosed else {
            promise?.fail(ChannelError.outputClosed)
            return
        }
        var bytes = unwrapOutboundIn(data)
        if holdsWrites { return held.append((bytes, promise)) }
        written.writeBuffer(&bytes)
        promise?.succeed()
    }

    /// The client takes what waits.
    func takeHeld() {
        holdsWrites = false
        let taken = held
        held = []
        for one in taken {
            written.writeImmutableBuffer(one.bytes)
            one.promise?.succeed()
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed { isInputClosed = true }
        context.fireUserInboundEventTriggered(event)
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        guard mode == .output else { return context.close(mode: mode, promise: promise) }
        isOutputClosed = true
        // Behind the end of the client's half, SwiftNIO makes the end of this one the end of all: what waits is lost.
        if isInputClosed {
            for (_, promise) in held { promise?.fail(ChannelError.ioOnClosedChannel) }
            held = []
        }
        if !holdsEnd { promise?.succeed() }
    }

    func takeWritten() -> String {
        defer { written.clear() }
        return String(buffer: written)
    }
}

/// A front door between a scripted socket, hot path and router.
struct FrontDoorBed {
    let channel = EmbeddedChannel()
    let socket = ScriptedSocket()
    let endpoint = ScriptedEndpoint()
    let router = ScriptedRouter()
    let drain = ServerDrain()
    let door: FrontDoor<ScriptedEndpoint>
    /// What the socket has not taken.
    final class Unsent: @unchecked Sendable { var bytes = 0 }
    let unsent = Unsent()

    init(
        times: ConnectionTimes = ConnectionTimes(),
        limits: RequestReader.Limits = .init(),
        pass: ConnectionPass = .ordinary,
        metrics: FrontDoorMetrics? = nil,
        peer: String = "127.0.0.1"
    ) throws {
        let unsent = self.unsent
        let configuration = FrontDoorConfiguration(
            limits: limits,
            times: times,
            drain: self.drain,
            metrics: metrics,
            unsentBytes: { _ in unsent.bytes }
        )
        door = FrontDoor(endpoint: self.endpoint, configuration: configuration, pass: pass)
        let pipeline = channel.pipeline.syncOperations
        try pipeline.addHandler(socket)
        try pipeline.addHandler(door)
        try pipeline.addHandler(router)
        let address = try SocketAddress(ipAddress: peer, port: 1)
        channel.remoteAddress = address
        try channel.connect(to: address).wait()
    }

    func send(_ text: String) throws { try channel.writeInbound(ByteBuffer(string: text)) }

    func halfClose() { channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed) }

    func stop() { channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent()) }

    func setWritable(_ isWritable: Bool) {
        channel.isWritable = isWritable
        channel.pipeline.fireChannelWritabilityChanged()
    }

    func advance(_ time: TimeAmount) { channel.embeddedEventLoop.advanceTime(by: time) }

    /// Whether the server has ended the connection, or its half.
    var isEnded: Bool { socket.isOutputClosed || !channel.isActive }

    /// The answers since the last look.
    func answers() -> [ReadAnswer] { ReadAnswer.all(in: socket.takeWritten()) }

    /// Their bodies.
    func bodies() -> [String] { answers().map(\.body) }
}

/// One answer as a strict reader sees it.
struct ReadAnswer: Equatable {
    var status: Int
    var fields: [(name: String, value: String)]
    var body: String
    var saysClose: Bool { fields.contains { $0.name == "connection" && $0.value == "close" } }

    static func == (one: ReadAnswer, other: ReadAnswer) -> Bool {
        one.status == other.status && one.body == other.body && one.saysClose == other.saysClose
    }

    subscript(name: String) -> String? { fields.first { $0.name == name }?.value }

    /// Reads answers with a length or in chunks. What cannot be read is an answer of status 0.
    static func all(in text: String) -> [ReadAnswer] {
        var answers: [ReadAnswer] = []
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            guard let end = rest.firstRange(of: Array("\r\n\r\n".utf8)) else { return answers + [unreadable(rest)] }
            let lines = String(decoding: rest[..<end.lowerBound], as: UTF8.self).split(separator: "\r\n")
            rest = rest[end.upperBound...]
            guard let first = lines.first?.split(separator: " "), first.count >= 2, first[0] == "HTTP/1.1", let status = Int(first[1])
            else {
                return answers + [unreadable(rest)]
            }
            var answer = ReadAnswer(status: status, fields: [], body: "")
            for line in lines.dropFirst() {
                let parts = line.split(separator: ": ", maxSplits: 1)
                answer.fields.append((parts[0].lowercased(), parts.count == 2 ? String(parts[1]) : ""))
            }
            if let length = answer["content-length"].flatMap({ Int($0) }) {
                guard rest.count >= length else { return answers + [unreadable(rest)] }
                answer.body = String(decoding: rest.prefix(length), as: UTF8.self)
                rest = rest.dropFirst(length)
            } else if answer["transfer-encoding"] == "chunked" {
                while true {
                    guard let line = rest.firstRange(of: [13, 10]),
                        let size = Int(String(decoding: rest[..<line.lowerBound], as: UTF8.self), radix: 16)
                    else { return answers + [unreadable(rest)] }
                    rest = rest[line.upperBound...]
                    answer.body += String(decoding: rest.prefix(size), as: UTF8.self)
                    rest = rest.dropFirst(size + 2)
                    if size == 0 { break }
                }
            }
            answers.append(answer)
        }
        return answers
    }

    private static func unreadable(_ rest: ArraySlice<UInt8>) -> ReadAnswer {
        ReadAnswer(status: 0, fields: [], body: String(decoding: rest, as: UTF8.self))
    }
}

func hot(_ body: String, extra: String = "") -> String {
    "PATCH /h HTTP/1.1\r\nHost: a\r\n\(extra)Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
}

func other(_ body: String, extra: String = "") -> String {
    "POST /o HTTP/1.1\r\nHost: a\r\n\(extra)Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
}
