package import NIOCore

/// What the answer to a refused request depends on. A head that cannot be read as a whole may still name a language, a format of errors and an id: the answer
/// then follows these.
package struct RefusedRequest: Equatable, Sendable {
    /// Whether the method is HEAD, whose answer has no body.
    package private(set) var isHEAD = false
    /// The value of `Accept`.
    package private(set) var accept: String?
    /// The value of `Accept-Language`.
    package private(set) var acceptLanguage: String?
    /// The caller's `X-Request-Id`, if it is a sane one.
    package private(set) var id: String?

    /// Takes the fields of a head that was read.
    package init(_ head: RequestHead) {
        isHEAD = head.methodText == "HEAD"
        accept = head.field("accept")
        acceptLanguage = head.field("accept-language")
        if case .given(let text) = head.id { id = text }
    }

    /// Takes the fields from the part of a head that has come. A line that is no field is passed over. Of several fields with one name the first counts:
    /// only the form of the refusal depends on it.
    package init(partial buffer: ByteBuffer) {
        buffer.withUnsafeReadableBytes { bytes in
            isHEAD = bytes.starts(with: "HEAD ".utf8)
            var start = bytes.firstIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? bytes.count
            // Ends: `start` grows in each round.
            while start < bytes.count {
                var at = start
                if let (name, value) = try? HeadParse.field(bytes, &at) {
                    note(UnsafeRawBufferPointer(rebasing: bytes[name]), UnsafeRawBufferPointer(rebasing: bytes[value]))
                    start = at
                } else {
                    // The head ends at an empty line, and what has come may end in the middle of a line.
                    guard let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")), end > start, bytes[start] != UInt8(ascii: "\r")
                    else { return }
                    start = end + 1
                }
            }
        }
    }

    private mutating func note(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        func text() -> String { String(decoding: value, as: UTF8.self) }
        switch name.count {
        case 6 where RequestHead.isName(name, 0, "accept"): accept = accept ?? text()
        case 12 where RequestHead.isName(name, 0, "x-request-id"): if HotRequestID.isRequestID(value) { id = id ?? text() }
        case 15 where RequestHead.isName(name, 0, "accept-language"): acceptLanguage = acceptLanguage ?? text()
        default: break
        }
    }
}
