import APIErrors
import NIOCore
import NIOHTTP1
import NIOPosix
import ServerKit
import StrictJSON
import Synchronization

/// A product server for tests: keys, stock and closed keys as the contract has them, and faults by script.
final class ProductStandIn: Sendable {
    /// What happens to a call, in the order given; calls beyond the script are served.
    enum Fault: Sendable {
        /// The connection ends before anything is done.
        case dropBefore
        /// It is done, and the connection ends before the answer.
        case dropAfter
        /// Nothing is done; this status and code for the whole call.
        case status(Int, String)
        /// Nothing is done and nothing is answered.
        case hang
        /// Nothing is done; every item is answered with this status and code.
        case items(Int, String)

        /// Whether the caller hears nothing, not even the connection's end.
        var isSilent: Bool { if case .hang = self { true } else { false } }
    }

    /// What happens to a look at a product, in the order given.
    enum LookFault: Sendable { case drop, hang }

    struct State {
        var stock: [Int64: Int64] = [:]
        /// Units taken by key; nil for a closed key.
        var taken: [String: Int64?] = [:]
        var givenBack: Set<String> = []
        var faults: [Fault] = []
        /// While it is set, nothing that changes stock is looked at: all of it waits.
        var isHeld = false
        /// Items as they came: `OUT DEC-7 1`.
        var seen: [String] = []
        var calls = 0
        var largestCall = 0
        /// What calls that change stock show.
        var authorizations: [String?] = []
        /// Keys that are refused for good, with status and code.
        var refusals: [String: (Int, String)] = [:]
        /// Bytes of a body at most; more is 413.
        var maximumBytes = 1 << 20
        var largestBody = 0
        var tooLarge = 0
        /// The price of product 1, and the looks at it.
        var price: Int64 = 900
        var looks = 0
        /// What a look says of the product's state, if it says one, and then of its units too.
        var shownStatus: String?
        var lookFaults: [LookFault] = []
        /// `X-Request-Id` of the calls, and of each item by its key.
        var callIDs: [String] = []
        var itemIDs: [String: String] = [:]
    }

    let state = Mutex(State())
    private let channel: any Channel

    private init(_ channel: any Channel) { self.channel = channel }

    static func start(stock: [Int64: Int64]) async throws -> ProductStandIn {
        let box = Box()
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(NIOHTTPServerRequestAggregator(maxContentLength: 1 << 20))
                    try channel.pipeline.syncOperations.addHandler(Handler(box))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let server = ProductStandIn(channel)
        server.state.withLock { $0.stock = stock }
        box.server.withLock { $0 = server }
        return server
    }

    var url: String { "http://127.0.0.1:\(channel.localAddress?.port ?? 0)" }
    var seen: [String] { state.withLock { $0.seen } }
    func stock(_ product: Int64) -> Int64 { state.withLock { $0.stock[product] ?? -1 } }
    func script(_ faults: Fault...) { state.withLock { $0.faults = faults } }
    func stop() async { try? await channel.close() }

    // MARK: Serving

    final class Box: Sendable {
        let server = Mutex<ProductStandIn?>(nil)
    }

    enum Reply {
        case answer(Int, [UInt8], isReplayed: Bool = false)
        case drop
        case hang
    }

    private func reply(method: HTTPMethod, path: String, headers: HTTPHeaders, body: [UInt8]) -> Reply {
        if method == .GET {
            return self.state.withLock { state in
                state.looks += 1
                if let id = headers.first(name: "x-request-id") { state.callIDs.append(id) }
                switch state.lookFaults.isEmpty ? nil : state.lookFaults.removeFirst() {
                case .drop: return .drop
                case .hang: return .hang
                case nil: break
                }
                guard path == "/products/CATALOG-002" || path == "/products/1" else {
                    return .answer(404, ProductStandIn.error("PRODUCT_NOT_FOUND"))
                }
                let shown = state.shownStatus.map { #","status":"\#($0)","stock":\#(state.stock[1] ?? 0)"# } ?? ""
                return .answer(200, Array(#"{"id":1,"code":"CATALOG-002","price":\#(state.price)\#(shown)}"#.utf8))
            }
        }
        // Another test's client may still call a port that was its own server's a moment ago.
        let isBatch = path == "/internal/stock/batch"
        let segments = path.split(separator: "/")
        guard isBatch || segments.count == 4 && segments[0] == "products" && segments[2] == "stock" else {
            return .answer(404, ProductStandIn.error("NOT_FOUND"))
        }
        return self.state.withLock { state in
            state.calls += 1
            state.authorizations.append(headers.first(name: "authorization"))
            if let id = headers.first(name: "x-request-id") { state.callIDs.append(id) }
            guard body.count <= state.maximumBytes else {
                state.tooLarge += 1
                return .answer(
                    413,
                    Array(#"{"error":"PAYLOAD_TOO_LARGE","message":"","details":{"maximumBytes":\#(state.maximumBytes)}}"#.utf8)
                )
            }
            state.largestBody = max(state.largestBody, body.count)
            let fault = state.faults.isEmpty ? nil : state.faults.removeFirst()
            guard let object = try? JSONObjectReader(body) else { return .answer(400, ProductStandIn.error("VALIDATION_ERROR")) }
            let items = isBatch ? (try? object.objects("items", count: 1...512)) ?? [] : [object]
            state.largestCall = max(state.largestCall, items.count)
            var answers: [Outcome] = []
            for item in items {
                let isOut = isBatch ? (try? item.text("direction")) == "OUT" : path.hasSuffix("decrease-by-order")
                let product =
                    isBatch ? (try? item.int("productId", in: 1...Int64.max)) ?? 0 : Int64(segments[1]) ?? 0
                let quantity = (try? item.int("quantity", in: 1...Int64.max)) ?? 0
                let key = (isBatch ? (try? item.text("key")) : headers.first(name: "idempotency-key")) ?? ""
                let attempt =
                    isBatch ? (try? item.int("attempt", in: 1...99)) ?? 0 : Int64(headers.first(name: "idempotency-attempt") ?? "") ?? 0
                state.seen.append("\(isOut ? "OUT" : "IN") \(key) \(attempt)")
                state.itemIDs[key] = isBatch ? (try? item.text("requestId")).flatMap { $0 } : headers.first(name: "x-request-id")
                if fault == nil, let (status, code) = state.refusals[key] {
                    answers.append(Outcome(status: status, code: code))
                    continue
                }
                switch fault {
                case .dropBefore, .hang, .status: continue
                case .items(let status, let code): answers.append(Outcome(status: status, code: code))
                case .dropAfter, nil:
                    answers.append(
                        isOut
                            ? ProductStandIn.decrease(&state, product, quantity, key, attempt)
                            : ProductStandIn.increase(&state, product, key)
                    )
                }
            }
            switch fault {
            case .dropBefore, .dropAfter: return .drop
            case .hang: return .hang
            case .status(let status, let code): return .answer(status, ProductStandIn.error(code))
            case .items, nil: break
            }
            if !isBatch, let one = answers.first {
                return .answer(
                    one.status,
                    one.code.map(ProductStandIn.error)
                        ?? Array(#"{"success":true,"remainingStock":\#(one.remaining),"message":"OK"}"#.utf8),
                    isReplayed: one.isReplayed
                )
            }
            var json = JSONWriter()
            json.object { json in
                json.array("items", answers) { json, answer in
                    json.object { json in
                        json.member("status", answer.status)
                        if let code = answer.code {
                            json.member("error", code)
                        } else {
                            json.member("remainingStock", answer.remaining)
                            json.member("replayed", answer.isReplayed)
                        }
                    }
                }
            }
            return .answer(200, json.bytes)
        }
    }

    /// What one item is answered.
    private struct Outcome {
        var status = 200
        var code: String?
        var remaining: Int64 = 0
        var isReplayed = false
    }

    private static func decrease(_ state: inout State, _ product: Int64, _ quantity: Int64, _ key: String, _ attempt: Int64) -> Outcome {
        if let known = state.taken[key] {
            return known == nil
                ? Outcome(status: 409, code: "KEY_CLOSED") : Outcome(remaining: state.stock[product] ?? 0, isReplayed: true)
        }
        guard let left = state.stock[product] else { return Outcome(status: 404, code: "PRODUCT_NOT_FOUND") }
        guard left >= quantity else {
            if attempt > 1 { state.taken[key] = .some(nil) }
            return Outcome(status: 400, code: "INSUFFICIENT_STOCK")
        }
        state.stock[product] = left - quantity
        state.taken[key] = quantity
        return Outcome(remaining: left - quantity)
    }

    private static func increase(_ state: inout State, _ product: Int64, _ key: String) -> Outcome {
        guard state.givenBack.insert(key).inserted else { return Outcome(remaining: state.stock[product] ?? 0, isReplayed: true) }
        let decreaseKey = "DEC" + key.dropFirst(3)
        if let taken = state.taken[decreaseKey], let units = taken {
            state.stock[product, default: 0] += units
        } else {
            state.taken[decreaseKey] = .some(nil)
        }
        return Outcome(remaining: state.stock[product] ?? 0)
    }

    private static func error(_ code: String) -> [UInt8] { Array(#"{"error":"\#(code)","message":"","details":null}"#.utf8) }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = NIOHTTPServerRequestFull
        typealias OutboundOut = HTTPServerResponsePart
        private let box: Box

        init(_ box: Box) { self.box = box }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            serve(unwrapInboundIn(data), context)
        }

        private func serve(_ request: NIOHTTPServerRequestFull, _ context: ChannelHandlerContext) {
            guard let server = box.server.withLock({ $0 }) else { return context.close(promise: nil) }
            guard context.channel.isActive else { return }
            if request.head.method != .GET, server.state.withLock({ $0.isHeld }) {
                let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
                context.eventLoop.scheduleTask(in: .milliseconds(2)) { bound.value.0.serve(request, bound.value.1) }
                return
            }
            let body = request.body.map { Array($0.readableBytesView) } ?? []
            switch server.reply(method: request.head.method, path: request.head.uri, headers: request.head.headers, body: body) {
            case .drop: context.close(promise: nil)
            case .hang: break
            case .answer(let status, let bytes, let isReplayed):
                var head = HTTPResponseHead(
                    version: .http1_1,
                    status: .init(statusCode: status),
                    headers: ["content-type": "application/json", "content-length": String(bytes.count)]
                )
                if isReplayed { head.headers.add(name: "idempotency-replayed", value: "true") }
                context.write(wrapOutboundOut(.head(head)), promise: nil)
                context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: bytes)))), promise: nil)
                context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            }
        }
    }
}
