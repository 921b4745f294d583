import NIOCore

/// A request as it goes over the wire.
///
/// A load generator sends the same head with another key a hundred thousand times a second: what stays the same is written once, and a request is that
/// and a few bytes more. A header dictionary and an encoder for each request cost several times as much.
struct HTTPRequestTemplate {
    /// Request line and the fields that every request has, each with its line end.
    private let beginning: ByteBuffer

    /// - Parameters:
    ///   - path: without the endpoint's prefix.
    ///   - fields: beside `Host`; no line ends in them.
    init(method: String, path: String, endpoint: HTTPEndpoint, fields: [HeaderField], isJSON: Bool) {
        var text = "\(method) \(endpoint.prefix)\(path) HTTP/1.1\r\nHost: \(endpoint.authority)\r\n"
        if isJSON { text += "Content-Type: application/json\r\n" }
        for field in fields { text += "\(field.name): \(field.value)\r\n" }
        beginning = ByteBuffer(string: text)
    }

    /// A request without a body.
    func request() -> ByteBuffer {
        var bytes = beginning
        bytes.writeStaticString("\r\n")
        return bytes
    }

    /// A request with a body, under an idempotency key.
    /// - Parameter attempt: from 1; the first says nothing of it.
    func request(key: String, attempt: Int, body: String, allocator: ByteBufferAllocator) -> ByteBuffer {
        var bytes = allocator.buffer(capacity: beginning.readableBytes + key.utf8.count + body.utf8.count + 96)
        bytes.writeImmutableBuffer(beginning)
        bytes.writeStaticString("Idempotency-Key: ")
        bytes.writeString(key)
        if attempt > 1 {
            bytes.writeStaticString("\r\nIdempotency-Attempt: ")
            bytes.writeString(String(attempt))
        }
        bytes.writeStaticString("\r\nContent-Length: ")
        bytes.writeString(String(body.utf8.count))
        bytes.writeStaticString("\r\n\r\n")
        bytes.writeString(body)
        return bytes
    }
}
