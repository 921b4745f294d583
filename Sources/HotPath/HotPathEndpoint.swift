public import APIErrors
public import HTTPTypes
public import NIOCore

/// The one route of a server that is worth answering without a task: it stands in front of the router, on the connection's event loop.
///
/// Requests that it leaves alone go on to the router, which has the same route and gives the same answers, only slower.
public protocol HotPathEndpoint: Sendable {
    /// What `match` read from the request's head.
    associatedtype Match

    /// Bytes of a body at most. A request with a larger one is the router's.
    var maximumBodyBytes: Int { get }

    /// What a matching request asks for; nil lets the router have it. Called on the event loop; must not block.
    func match(_ head: RequestHead) -> Match?

    /// Answers a matching request. Called on the event loop, where `answer` must be called once, before or after this returns.
    func respond(
        to match: Match,
        head: RequestHead,
        body: ByteBuffer,
        on eventLoop: any EventLoop,
        answer: @escaping (HotPathAnswer) -> Void
    )
}

extension HotPathEndpoint {
    /// 4 KiB: the body of a hot request is a few numbers and texts.
    public var maximumBodyBytes: Int { 4096 }
}

/// What a hot path answers with.
public struct HotPathAnswer: Sendable {
    /// The status.
    public let status: HTTPResponse.Status
    /// Header lines beside those of the body's length, the date and the request's id, each with its line end.
    package private(set) var lines: String
    /// The body's bytes.
    public let body: [UInt8]

    /// An answer with a JSON body.
    public init(status: HTTPResponse.Status = .ok, json body: [UInt8]) {
        self.status = status
        lines = "Content-Type: application/json\r\n"
        self.body = body
    }

    /// An error in the one shape, in the format and language that the request asks for.
    public init(_ error: APIError, to head: RequestHead) {
        let rendered = error.render(accept: head.field("accept"), language: .negotiated(head.field("accept-language")))
        status = .init(code: rendered.status, reasonPhrase: error.code.phrase)
        lines = rendered.headerLines
        body = rendered.body
    }

    /// Adds a header field. Line ends in a value are dropped, because each would begin a line of its own.
    public mutating func add(_ name: HTTPField.Name, _ value: String) {
        lines.addLine(name, value)
    }
}
