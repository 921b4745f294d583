import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Answers in the places of the servers behind a gateway, and remembers what came.
///
/// Every request is answered 200 with what the server saw, but for two kinds: one whose path has `held` gets no answer until ``release()``, and one whose path has
/// `dropped` gets its connection closed.
final class StandIns: Sendable {
    /// A request as a server got it.
    struct Seen: Sendable {
        var server: String
        var method: String
        var path: String
        var fields: HTTPHeaders
        var bodyBytes = 0
    }

    private struct State {
        var seen: [Seen] = []
        var held: [EventLoopPromise<Void>] = []
        var channels: [any Channel] = []
    }

    private let state = Mutex(State())

    /// Listens on every port that the stack has for product and order servers.
    static func start(at stack: Stack) async throws -> StandIns {
        let standIns = StandIns()
        for kind in ["PRODUCT", "ORDER"] {
            for instance in 1...stack.instances {
                let address = try stack.address(kind, instance, "PORT")
                guard let port = URLComponents(string: address)?.port else { throw SystemFailure(description: "\(address) has no port") }
                let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                    .serverChannelOption(.backlog, value: 1024)
                    .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                    .childChannelInitializer { channel in
                        channel.eventLoop.makeCompletedFuture {
                            try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                            try channel.pipeline.syncOperations.addHandler(StandInHandler(standIns, server: "\(kind)_\(instance)"))
                        }
                    }
                    .bind(host: "127.0.0.1", port: port).get()
                standIns.state.withLock { $0.channels.append(channel) }
            }
        }
        return standIns
    }

    func stop() async throws {
        self.release()
        for channel in state.withLock({ $0.channels }) { try await channel.close().get() }
    }

    /// Everything that came so far.
    var seen: [Seen] { state.withLock { $0.seen } }

    /// Requests that wait for an answer.
    var held: Int { state.withLock { $0.held.count } }

    /// Answers those that are held.
    func release() {
        let held = self.state.withLock { state in
            defer { state.held = [] }
            return state.held
        }
        for promise in held { promise.succeed() }
    }

    fileprivate func note(_ seen: Seen) { state.withLock { $0.seen.append(seen) } }

    fileprivate func hold(_ promise: EventLoopPromise<Void>) { state.withLock { $0.held.append(promise) } }
}

private final class StandInHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let standIns: StandIns
    private let server: String
    private var head: HTTPRequestHead?
    private var bodyBytes = 0

    init(_ standIns: StandIns, server: String) {
        self.standIns = standIns
        self.server = server
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): (self.head, self.bodyBytes) = (head, 0)
        case .body(let part): self.bodyBytes += part.readableBytes
        case .end:
            guard let head else { return }
            self.head = nil
            standIns.note(
                StandIns.Seen(
                    server: self.server,
                    method: head.method.rawValue,
                    path: head.uri,
                    fields: head.headers,
                    bodyBytes: self.bodyBytes
                )
            )
            if head.uri.contains("dropped") { return context.close(promise: nil) }
            if head.uri.contains("held") {
                let promise = context.eventLoop.makePromise(of: Void.self)
                let answer = NIOLoopBound((self, context), eventLoop: context.eventLoop)
                promise.futureResult.whenSuccess { answer.value.0.answer(head, answer.value.1) }
                return standIns.hold(promise)
            }
            self.answer(head, context)
        }
    }

    private func answer(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        let fields = head.headers.map { "\($0.name.lowercased()): \($0.value)" }
        let object: [String: Any] = ["server": server, "method": head.method.rawValue, "path": head.uri, "fields": fields]
        let body = (try? JSONSerialization.data(withJSONObject: object)) ?? Data()
        var headers: HTTPHeaders = [
            "content-type": "application/json", "content-length": "\(body.count)",
            "x-request-id": head.headers.first(name: "x-request-id") ?? "none",
        ]
        if head.uri.contains("moved") { headers.add(name: "location", value: "/orders/7") }
        if !head.isKeepAlive { headers.add(name: "connection", value: "close") }
        context.write(wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: .ok, headers: headers))), promise: nil)
        if head.method != .HEAD { context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: body)))), promise: nil) }
        let written = context.eventLoop.makePromise(of: Void.self)
        let channel = context.channel
        if !head.isKeepAlive { written.futureResult.whenComplete { _ in channel.close(promise: nil) } }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: written)
    }
}

/// Sends bytes as they are.
struct RawConnection: Sendable {
    private let channel: any Channel
    private let collector: NIOLoopBound<Collector>

    init(_ address: String) async throws {
        guard let port = URLComponents(string: address)?.port else { throw SystemFailure(description: "\(address) has no port") }
        (self.channel, self.collector) = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    let collector = Collector()
                    try channel.pipeline.syncOperations.addHandler(collector)
                    return (channel, NIOLoopBound(collector, eventLoop: channel.eventLoop))
                }
            }
    }

    func send(_ bytes: [UInt8]) async throws { try await channel.writeAndFlush(ByteBuffer(bytes: bytes)) }

    func send(_ text: String) async throws { try await self.send(Array(text.utf8)) }

    /// Closes this side's half: nothing more is asked.
    func endSending() async throws { try await channel.close(mode: .output) }

    /// Waits for a whole answer with a length, or for the end of the connection.
    func answer(within bound: TimeAmount = .seconds(60)) async throws -> String {
        try await wait("an answer", within: bound) { $0.isClosed || RawConnection.isWhole($0.text) }
    }

    /// Waits for the end of the connection.
    func end(within bound: TimeAmount) async throws -> String {
        try await wait("the connection's end", within: bound) { $0.isClosed }
    }

    private func wait(_ what: String, within bound: TimeAmount, _ holds: @escaping @Sendable (Collector) -> Bool) async throws -> String {
        let loop = self.channel.eventLoop
        let promise = loop.makePromise(of: String.self)
        let timeout = loop.scheduleTask(in: bound) { promise.fail(SystemFailure(description: "not within \(bound): \(what)")) }
        loop.execute { [collector] in
            collector.value.wait = (holds, promise)
            collector.value.look()
        }
        defer { timeout.cancel() }
        return try await promise.futureResult.get()
    }

    func close() { channel.close(promise: nil) }

    private static func isWhole(_ text: String) -> Bool {
        var rest = text[...]
        if rest.hasPrefix("HTTP/1.1 100 "), let end = rest.firstRange(of: "\r\n\r\n") { rest = rest[end.upperBound...] }
        guard let end = rest.firstRange(of: "\r\n\r\n") else { return false }
        let length = rest[..<end.lowerBound].split(separator: "\r\n").first { $0.lowercased().hasPrefix("content-length:") }
        guard let length, let bytes = Int(length.dropFirst("content-length:".count).trimmingCharacters(in: .whitespaces)) else {
            return false
        }
        return rest[end.upperBound...].utf8.count >= bytes
    }

    /// Confined to its channel's event loop.
    private final class Collector: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private var bytes = ByteBuffer()
        private(set) var isClosed = false
        var wait: (holds: (Collector) -> Bool, promise: EventLoopPromise<String>)?
        var text: String { String(decoding: bytes.readableBytesView, as: UTF8.self) }

        func look() {
            guard let (holds, promise) = wait, holds(self) else { return }
            wait = nil
            promise.succeed(text)
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var part = unwrapInboundIn(data)
            bytes.writeBuffer(&part)
            look()
        }

        func channelInactive(context: ChannelHandlerContext) {
            isClosed = true
            look()
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
