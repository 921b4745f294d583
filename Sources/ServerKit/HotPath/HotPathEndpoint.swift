import HTTPTypes
import NIOCore

/// The one route of a server that is worth answering without a task: it stands in front of the router, on the connection's event loop.
///
/// Requests that it does not know go on to the router, which has the same route: what an endpoint refuses to look at is answered the same way, only slower.
public protocol HotPathEndpoint: Sendable {
    /// What `match` read from the request's head.
    associatedtype Match

    /// What a matching request asks for; nil lets the router have it. Called on the event loop; must not block.
    func match(_ head: HTTPRequest) -> Match?

    /// Answers a matching request, on the event loop. `answer` is called once, there, now or later.
    func respond(
        to match: Match,
        head: HTTPRequest,
        body: ByteBuffer,
        on eventLoop: any EventLoop,
        answer: @escaping (HotPathAnswer) -> Void
    )
}

/// What a hot path answers with.
public struct HotPathAnswer: Sendable {
    /// The status.
    public var status: HTTPResponse.Status
    /// Headers beside those of the body's length, the date and the request's id.
    public var headers: HTTPFields
    /// The body's bytes.
    public var body: [UInt8]

    /// An answer with a JSON body.
    public init(status: HTTPResponse.Status = .ok, json body: [UInt8]) {
        self.status = status
        self.headers = [.contentType: "application/json"]
        self.body = body
    }

    /// An error in the one shape, in the format and language that the request asks for.
    public init(_ error: APIError, to head: HTTPRequest) {
        let rendered = error.render(
            accept: head.headerFields[.accept],
            language: .negotiated(head.headerFields[.acceptLanguage])
        )
        self.status = .init(code: rendered.status)
        self.headers = rendered.headerFields
        self.body = rendered.body
    }
}
