import NIOCore
import NIOHTTP1

/// A few calls from tasks: creating the product, looking at the breaker. Buyers use `HTTPConnection` itself.
///
/// One call at a time for each caller; a call that meets another under way fails as `closed`.
public struct HTTPCaller: Sendable {
    private let endpoint: HTTPEndpoint
    private let eventLoop: any EventLoop
    private let connection: NIOLoopBound<HTTPConnection>

    /// Must be called on the event loop, as the connection lives there.
    init(endpoint: HTTPEndpoint, eventLoop: any EventLoop, timeout: TimeAmount) {
        self.endpoint = endpoint
        self.eventLoop = eventLoop
        // Four megabytes: a full ring of breaker events.
        let connection = HTTPConnection(eventLoop: eventLoop, address: endpoint.address, timeout: timeout, bodyLimit: 4 << 20)
        self.connection = NIOLoopBound(connection, eventLoop: eventLoop)
    }

    /// Makes a caller on the event loop.
    public static func make(endpoint: HTTPEndpoint, eventLoop: any EventLoop, timeout: TimeAmount) async throws -> HTTPCaller {
        try await eventLoop.submit { HTTPCaller(endpoint: endpoint, eventLoop: eventLoop, timeout: timeout) }.get()
    }

    /// Sends one request and waits for the whole answer.
    /// - Throws: `HTTPFailure`.
    public func call(_ method: HTTPMethod, _ path: String, json: String? = nil, headers: [(String, String)] = []) async throws -> HTTPAnswer
    {
        var fields = HTTPHeaders([("Host", endpoint.authority)] + headers)
        let body = json.map { ByteBuffer(string: $0) }
        if let body {
            fields.add(name: "Content-Type", value: "application/json")
            fields.add(name: "Content-Length", value: String(body.readableBytes))
        }
        let head = HTTPRequestHead(version: .http1_1, method: method, uri: endpoint.prefix + path, headers: fields)
        let promise = eventLoop.makePromise(of: HTTPAnswer.self)
        eventLoop.execute {
            connection.value.send(head, body: body) { promise.completeWith($0.mapError { $0 as any Error }) }
        }
        return try await promise.futureResult.get()
    }

    /// Closes the connection.
    public func close() {
        eventLoop.execute { connection.value.close() }
    }
}
