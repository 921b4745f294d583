public import NIOCore
import NIOPosix
import SeededRandom

/// So many connections, each with one request under way until the time is over: what two servers that do the same work are compared by.
///
/// Leaner than `LoadGenerator`, which tells orders apart: here only statuses and latencies are kept, so that the generator, which shares the machine with
/// what it measures, takes little of it. The same bytes go to every server but for the host.
///
/// Invariant: every request that was sent ends up in `Figures.answered` or in `Figures.broken`. Bounds: `connections` requests under way, `answerTimeout` for each,
/// 64 KiB of body; a connection that broke is not made again. A run with broken connections is judged by its caller.
public enum ClosedLoop {
    /// What is sent again and again.
    public struct Request: Sendable {
        /// What tells one request from the next.
        public enum Body: Sendable {
            /// No body and no key.
            case none
            /// The same body each time, under a key of its own each time where there is a prefix.
            case constant(String, keyPrefix: String?)
            /// A body that has the request's number in it, and the key with the same number behind the prefix.
            case numbered(before: String, after: String, keyPrefix: String)
        }

        let method: String
        /// The paths, one at least.
        let paths: [String]
        let spread: ProductSpread
        let body: Body
        /// The number before the first one: keys of two runs must not meet, for a key that is known is answered without work.
        let after: UInt64

        /// - Parameters:
        ///   - path: with what precedes it at the server.
        ///   - after: the number before the first one.
        public init(_ method: String, _ path: String, _ body: Body, after: UInt64 = 0) {
            self.init(method, paths: [path], spread: .even, body, after: after)
        }

        /// - Parameters:
        ///   - paths: one of them is drawn for each request; one at least.
        ///   - spread: how often each is drawn.
        public init(_ method: String, paths: [String], spread: ProductSpread, _ body: Body, after: UInt64 = 0) {
            // All callers are programs of this package that name their paths, so no input empties the list.
            precondition(!paths.isEmpty, "a request goes somewhere")
            self.method = method
            self.paths = paths
            self.spread = spread
            self.body = body
            self.after = after
        }

        /// The bytes before what differs between two requests to one path, for each path.
        func heads(authority: String) -> [ByteBuffer] {
            paths.map { path in
                var head = "\(method) \(path) HTTP/1.1\r\nHost: \(authority)\r\n"
                if case .none = body { head += "\r\n" } else { head += "Content-Type: application/json\r\n" }
                return ByteBuffer(string: head)
            }
        }

        func bytes(head: ByteBuffer, number: UInt64, allocator: ByteBufferAllocator) -> ByteBuffer {
            var bytes = allocator.buffer(capacity: head.readableBytes + 192)
            bytes.writeImmutableBuffer(head)
            let digits = String(number)
            switch body {
            case .none: break
            case .constant(let text, let prefix):
                if let prefix { bytes.writeString("Idempotency-Key: \(prefix)\(digits)\r\n") }
                bytes.writeString("Content-Length: \(text.utf8.count)\r\n\r\n")
                bytes.writeString(text)
            case .numbered(let before, let after, let prefix):
                let length = before.utf8.count + digits.utf8.count + after.utf8.count
                bytes.writeString("Idempotency-Key: \(prefix)\(digits)\r\nContent-Length: \(length)\r\n\r\n")
                bytes.writeString(before)
                bytes.writeString(digits)
                bytes.writeString(after)
            }
            return bytes
        }
    }

    /// What came of a run.
    public struct Figures: Sendable {
        /// Requests that were answered before the time was over: what the rate is made of.
        public internal(set) var inTime = 0
        /// All answers by status, those to the last requests of all connections included: what the books are compared with.
        public internal(set) var answered: [Int: Int] = [:]
        /// Requests without an answer.
        public internal(set) var broken = 0
        /// Why the first broken connection broke.
        public internal(set) var firstFailure: String?
        /// From sending to the whole answer, of those in time.
        public internal(set) var latencies = Latencies()
        /// From the first request to the end of the time, in seconds.
        public internal(set) var seconds = 0.0

        /// Nothing sent yet.
        public init() {}

        /// All answers.
        public var answers: Int { answered.values.reduce(0, +) }
        /// Answers in time a second.
        public var rate: Double { seconds > 0 ? Double(inTime) / seconds : 0 }
    }

    /// How long one answer may take.
    static let answerTimeout = TimeAmount.seconds(5)

    /// Connects, sends until the time is over, waits for the answers that are under way, and closes.
    /// - Parameters:
    ///   - pause: a connection waits up to twice as long before each request, at random; zero for none.
    ///   - eventLoop: everything happens on it.
    /// - Throws: `HTTPFailure` when a connection cannot be made.
    public static func run(
        _ request: Request,
        at endpoint: HTTPEndpoint,
        connections: Int,
        for duration: Duration,
        pause: Duration = .zero,
        on eventLoop: any EventLoop
    ) async throws -> Figures {
        let course = try await eventLoop.submit {
            NIOLoopBound(Course(request, authority: endpoint.authority, pause: pause, eventLoop: eventLoop), eventLoop: eventLoop)
        }.get()
        for _ in 0..<connections {
            do {
                _ = try await ClientBootstrap(group: eventLoop)
                    .connectTimeout(.seconds(5))
                    .channelOption(.socketOption(.tcp_nodelay), value: 1)
                    .channelInitializer { channel in
                        channel.eventLoop.makeCompletedFuture {
                            let one = OneConnection(course.value)
                            try channel.pipeline.syncOperations.addHandler(one)
                            course.value.connections.append(one)
                        }
                    }
                    .connect(to: endpoint.address).get()
            } catch {
                _ = try? await eventLoop.submit { course.value.close() }.get()
                throw HTTPFailure.connect("\(endpoint.url): \(error)")
            }
        }
        return try await eventLoop.flatSubmit { course.value.open(for: TimeAmount(duration)) }.get()
    }
}

/// One run, on its event loop.
private final class Course {
    let request: ClosedLoop.Request
    private let heads: [ByteBuffer]
    private let choice: ProductChoice
    let allocator = ByteBufferAllocator()
    let eventLoop: any EventLoop
    let pause: Int64
    var generator = SplitMix64(seed: 1)
    var connections: [OneConnection] = []
    var figures = ClosedLoop.Figures()
    var number: UInt64
    var isOver = false
    private var opened = NIODeadline.now()
    private let finished: EventLoopPromise<ClosedLoop.Figures>
    private var isFinished = false

    init(_ request: ClosedLoop.Request, authority: String, pause: Duration, eventLoop: any EventLoop) {
        self.request = request
        self.eventLoop = eventLoop
        self.pause = TimeAmount(pause).nanoseconds
        heads = request.heads(authority: authority)
        choice = ProductChoice(request.spread, count: request.paths.count)
        number = request.after
        finished = eventLoop.makePromise()
    }

    deinit {
        // A promise must not be dropped unanswered; answering it twice is harmless.
        finished.succeed(figures)
    }

    func open(for duration: TimeAmount) -> EventLoopFuture<ClosedLoop.Figures> {
        opened = .now()
        for connection in connections { connection.begin() }
        eventLoop.assumeIsolated().scheduleTask(in: duration) { self.end() }
        armWatch()
        return finished.futureResult
    }

    func next() -> ByteBuffer {
        number += 1
        return request.bytes(head: heads[choice.next(using: &generator)], number: number, allocator: allocator)
    }

    private func end() {
        figures.seconds = Double((NIODeadline.now() - opened).nanoseconds) / 1e9
        isOver = true
        finishIfDone()
    }

    func finishIfDone() {
        guard isOver, !isFinished, connections.allSatisfy({ !$0.isWaiting }) else { return }
        isFinished = true
        close()
        // The connections hold this object, which holds them: letting them go here ends the cycle.
        connections = []
        finished.succeed(figures)
    }

    func close() {
        for connection in connections { connection.close() }
    }

    /// Looks for answers that do not come. Once a second is exact enough for what ends a run.
    private func armWatch() {
        eventLoop.assumeIsolated().scheduleTask(in: .seconds(1)) {
            guard !self.isFinished else { return }
            let limit = NIODeadline.now() - ClosedLoop.answerTimeout
            for connection in self.connections where connection.isWaiting && connection.sent < limit { connection.fail(.timedOut) }
            self.finishIfDone()
            self.armWatch()
        }
    }
}

private final class OneConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let course: Course
    private var context: ChannelHandlerContext?
    private var parser = AnswerParser(bodyLimit: 64 * 1024)
    private var rest: ByteBuffer?
    private(set) var isWaiting = false
    private(set) var sent = NIODeadline.now()

    init(_ course: Course) { self.course = course }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func begin() {
        guard !course.isOver else { return }
        guard course.pause > 0 else { return send() }
        let wait = Int64.random(in: 0...course.pause * 2, using: &course.generator)
        course.eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(wait)) { if !self.course.isOver { self.send() } }
    }

    private func send() {
        guard let context else {
            isWaiting = true
            return fail(.closed)
        }
        isWaiting = true
        sent = .now()
        context.writeAndFlush(wrapOutboundOut(course.next()), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        if var rest {
            rest.writeBuffer(&bytes)
            bytes = rest
            self.rest = nil
        }
        do {
            while let answer = try parser.next(&bytes) { received(answer) }
            if bytes.readableBytes > 0 { rest = bytes }
        } catch {
            fail(error)
        }
    }

    private func received(_ answer: AnswerParser.Answer) {
        guard isWaiting else { return fail(.malformed("an answer that nobody asked for")) }
        isWaiting = false
        course.figures.answered[answer.answer.status, default: 0] += 1
        if !course.isOver {
            course.figures.inTime += 1
            course.figures.latencies.record(microseconds: (NIODeadline.now() - sent).nanoseconds / 1000)
            // A server that ends its connections does other work than one that keeps them.
            guard answer.keepsAlive else { return fail(.closed) }
            begin()
        } else {
            course.finishIfDone()
        }
    }

    func fail(_ failure: HTTPFailure) {
        if isWaiting || !course.isOver {
            course.figures.broken += 1
            if course.figures.firstFailure == nil { course.figures.firstFailure = failure.description }
        }
        isWaiting = false
        close()
        course.finishIfDone()
    }

    func close() {
        context?.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        if isWaiting { fail(.closed) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(.closed)
    }
}
