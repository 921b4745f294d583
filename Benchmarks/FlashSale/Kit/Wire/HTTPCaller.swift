public import NIOCore
public import NIOHTTP1

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
        let connection = HTTPConnection(
            eventLoop: eventLoop,
            address: endpoint.address,
            tls: endpoint.tls,
            timeout: timeout,
            bodyLimit: 4 << 20
        )
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
        var text = "\(method.rawValue) \(endpoint.prefix)\(path) HTTP/1.1\r\nHost: \(endpoint.authority)\r\n"
        for (name, value) in headers { text += "\(name): \(value)\r\n" }
        if let json { text += "Content-Type: application/json\r\nContent-Length: \(json.utf8.count)\r\n" }
        // A method that may carry a body says that it carries none.
        if json == nil, method != .GET, method != .HEAD { text += "Content-Length: 0\r\n" }
        let request = ByteBuffer(string: text + "\r\n" + (json ?? ""))
        let promise = eventLoop.makePromise(of: HTTPAnswer.self)
        eventLoop.execute {
            connection.value.send(request) { promise.completeWith($0.mapError { $0 as any Error }) }
        }
        return try await promise.futureResult.get()
    }

    /// Closes the connection.
    public func close() {
        eventLoop.execute { connection.value.close() }
    }
}
