public import APIErrors
import HTTPTypes
public import HotPath
public import Hummingbird
import NIOCore

extension APIError {
    /// The error as an answer to a request.
    public func response(to request: Request) -> Response {
        render(
            accept: request.headers[.accept],
            language: .negotiated(request.headers[.acceptLanguage])
        ).response
    }
}

extension RenderedError {
    /// The error as an answer of the router.
    public var response: Response {
        Response(status: .init(code: status), headers: headerFields, body: .init(byteBuffer: ByteBuffer(bytes: body)))
    }
}
