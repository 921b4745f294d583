// Invariant: a head is accepted only in a form that RFC 9112 allows and that every careful reader reads in the same way. What two readers could take in two
//   ways (section 11.2: a length beside a transfer coding, two lengths, folded or bare line ends, odd characters) is refused, and the connection ends.
// Bounds: the limits of `RequestReader.Limits`; one pass over the bytes.

import APIErrors
import Glibc
package import NIOCore
import StrictJSON

/// The head of one HTTP/1.1 or HTTP/1.0 request. Its bytes stay where they are, and values are read from them when somebody asks.
public struct RequestHead: Sendable {
    /// What follows the head.
    package enum Framing: Sendable, Equatable {
        /// So many bytes; 0 without a `Content-Length`.
        case length(Int)
        case chunked
    }

    /// The methods that a hot path can have.
    public enum Method: Sendable, Equatable {
        case patch, post
        case other
    }

    /// The method, such as `PATCH`.
    public let method: Method
    /// The head's bytes, the empty line included.
    private let bytes: ByteBuffer
    private let methodEnd: Int
    /// The target without scheme and authority. May be empty, or begin with a question mark, in an absolute address.
    private let targetBytes: Range<Int>
    private let fieldsStart: Int
    /// The authority of an absolute address, else the value of `Host`.
    private let hostBytes: Range<Int>
    /// The value of an `X-Request-Id` that may be passed on.
    private let givenID: Range<Int>?
    /// Which names the fields may have: most lookups are for fields that are not there, and end here.
    private let names: NameSet

    package let framing: Framing
    /// Whether the connection ends after this request's answer: the client said so, or speaks HTTP/1.0 and did not ask to go on.
    package let closes: Bool
    package let isHTTP10: Bool
    /// Whether the client waits for `100 Continue` before it sends the body.
    package let expectsContinue: Bool
    /// What the server calls the request where the client gave it no name: a random number of the connection's, and the request's number on it.
    package var madeID: (connection: UInt64, number: UInt64) = (0, 0)
    /// Whether the peer is on this machine.
    public package(set) var isFromLoopback = false
    /// Whether the request says that a proxy passed it on, or which page of a browser sent it.
    package let saysWhereFrom: Bool

    /// Bytes of the head, the empty line included.
    package var length: Int { bytes.readableBytes }

    /// The request target, as sent; without scheme and authority.
    public var path: String { text(targetBytes) }

    /// ``path`` without what stands after the first question mark.
    package var pathWithoutQuery: String { String(path.prefix { $0 != "?" }) }

    /// ``path``, as a router wants it: never empty, and beginning with a slash unless it is the `*` of OPTIONS.
    package var routerPath: String {
        let path = self.path
        return path.isEmpty || path.utf8.first == UInt8(ascii: "?") ? "/" + path : path
    }

    /// The method as sent.
    package var methodText: String { text(0..<methodEnd) }

    /// The host that the request is for; empty where HTTP/1.0 named none.
    public var host: String { text(hostBytes) }

    /// Whether the host is this name, byte for byte, alone or with a port from 1 to 65535.
    public func isHost(_ name: StaticString) -> Bool {
        bytes.withUnsafeReadableBytes { bytes in
            let count = name.utf8CodeUnitCount
            guard hostBytes.count >= count else { return false }
            var at = hostBytes.lowerBound
            for index in 0..<count where bytes[at + index] != name.utf8Start[index] { return false }
            at += count
            if at == hostBytes.upperBound { return true }
            let digits = (at + 1)..<hostBytes.upperBound
            guard bytes[at] == UInt8(ascii: ":"), (1...5).contains(digits.count) else { return false }
            var port = 0
            for byte in UnsafeRawBufferPointer(rebasing: bytes[digits]) {
                guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return false }
                // Five digits at most.
                port = port * 10 + Int(byte - UInt8(ascii: "0"))
            }
            return (1...65535).contains(port)
        }
    }

    private func text(_ range: Range<Int>) -> String {
        bytes.withUnsafeReadableBytes { String(decoding: UnsafeRawBufferPointer(rebasing: $0[range]), as: UTF8.self) }
    }

    /// The id that the request target has between two texts, or nil. Bytes are compared, because comparing characters would cost more than everything else
    /// that is read here.
    public func id(after prefix: StaticString, before suffix: StaticString) -> Int64? {
        self.bytes.withUnsafeReadableBytes { bytes in
            let start = targetBytes.lowerBound + prefix.utf8CodeUnitCount
            let end = targetBytes.upperBound - suffix.utf8CodeUnitCount
            guard start < end, RequestHead.isText(bytes, targetBytes.lowerBound, prefix), RequestHead.isText(bytes, end, suffix)
            else { return nil }
            return Values.id(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
        }
    }

    /// Whether the request target is this path, byte for byte.
    public func isPath(_ path: String) -> Bool {
        bytes.withUnsafeReadableBytes { bytes in path.utf8.elementsEqual(UnsafeRawBufferPointer(rebasing: bytes[targetBytes])) }
    }

    /// The value of a field; its values joined by commas if it is there more than once (RFC 9110, 5.3).
    /// - Parameter name: in lower case
    public func field(_ name: StaticString) -> String? {
        guard names.mayContain(name) else { return nil }
        return self.bytes.withUnsafeReadableBytes { bytes in
            var found: String?
            RequestHead.eachLine(bytes, from: fieldsStart) { line, end in
                guard end - line > name.utf8CodeUnitCount, bytes[line + name.utf8CodeUnitCount] == UInt8(ascii: ":"),
                    RequestHead.isName(bytes, line, name)
                else { return }
                let value = RequestHead.trimmed(bytes, line + name.utf8CodeUnitCount + 1, end)
                let text = String(decoding: UnsafeRawBufferPointer(rebasing: bytes[value]), as: UTF8.self)
                found = found.map { $0 + ", " + text } ?? text
            }
            return found
        }
    }

    /// Whether a field is there once, with exactly this value: the same as comparing ``field(_:)``, without a text.
    /// - Parameter name: in lower case
    func has(_ name: StaticString, _ value: StaticString) -> Bool {
        guard names.mayContain(name) else { return false }
        return self.bytes.withUnsafeReadableBytes { bytes in
            var (found, equal) = (0, false)
            RequestHead.eachLine(bytes, from: fieldsStart) { line, end in
                guard end - line > name.utf8CodeUnitCount, bytes[line + name.utf8CodeUnitCount] == UInt8(ascii: ":"),
                    RequestHead.isName(bytes, line, name)
                else { return }
                let range = RequestHead.trimmed(bytes, line + name.utf8CodeUnitCount + 1, end)
                found += 1
                equal = range.count == value.utf8CodeUnitCount && RequestHead.isText(bytes, range.lowerBound, value)
            }
            return found == 1 && equal
        }
    }

    /// Every field in the order of its line.
    package func eachField(_ body: (_ name: String, _ value: String) -> Void) {
        self.bytes.withUnsafeReadableBytes { bytes in
            RequestHead.eachLine(bytes, from: fieldsStart) { line, end in
                var colon = line
                while colon < end, bytes[colon] != UInt8(ascii: ":") { colon += 1 }
                guard colon < end else { return }
                let value = RequestHead.trimmed(bytes, colon + 1, end)
                body(
                    String(decoding: UnsafeRawBufferPointer(rebasing: bytes[line..<colon]), as: UTF8.self),
                    String(decoding: UnsafeRawBufferPointer(rebasing: bytes[value]), as: UTF8.self)
                )
            }
        }
    }

    /// The request's id: the caller's `X-Request-Id` if it is a sane one, else the one that was made here.
    public var id: HotRequestID {
        guard let range = givenID else { return .made(connection: madeID.connection, number: madeID.number) }
        return .given(text(range))
    }
}

// MARK: - Reading

extension RequestHead {
    /// What the bytes at hand begin with.
    package enum Reading {
        /// The rest of the head has not come yet.
        case partial
        case head(RequestHead)
        case refused(RequestRefusal)
    }

    /// Reads a head from the beginning of `buffer`, which is not changed.
    package static func read(_ buffer: ByteBuffer, limits: RequestReader.Limits = .init()) -> Reading {
        buffer.withUnsafeReadableBytes { bytes in
            do throws(RequestRefusal) {
                var parse = HeadParse(bytes: bytes, limits: limits)
                guard try parse.run() else {
                    if bytes.count >= limits.headBytes { throw .headTooLarge }
                    return .partial
                }
                // Within the readable bytes: the parse has passed them.
                guard let slice = buffer.getSlice(at: buffer.readerIndex, length: parse.at) else { throw .requestLine }
                return .head(RequestHead(parse, bytes: slice))
            } catch {
                return .refused(error)
            }
        }
    }

    private init(_ parse: HeadParse, bytes: ByteBuffer) {
        method = parse.method
        self.bytes = bytes
        methodEnd = parse.methodEnd
        targetBytes = parse.target
        fieldsStart = parse.fieldsStart
        hostBytes = parse.authority ?? parse.host ?? 0..<0
        givenID = parse.requestID
        names = parse.names
        framing = parse.isChunked ? .chunked : .length(parse.contentLength ?? 0)
        closes = parse.saysClose || (parse.isHTTP10 && !parse.saysKeepAlive)
        isHTTP10 = parse.isHTTP10
        expectsContinue = parse.expectsContinue && !parse.isHTTP10
        saysWhereFrom = parse.saysWhereFrom
    }

    static func eachLine(_ bytes: UnsafeRawBufferPointer, from start: Int, _ body: (_ line: Int, _ end: Int) -> Void) {
        var line = start
        // Ends: every line takes at least the two bytes of its end.
        while line < bytes.count {
            let end = RequestHead.lineEnd(bytes, line)
            if end == line { return }
            body(line, end)
            line = end + 2
        }
    }

    /// Where the line that begins at `start` ends. The C library looks at many bytes at a time, and fields are looked up several times in each request.
    private static func lineEnd(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Int {
        guard let base = bytes.baseAddress, let end = memchr(base + start, Int32(UInt8(ascii: "\r")), bytes.count - start) else {
            return bytes.count
        }
        return UnsafeRawPointer(end) - base
    }

    static func trimmed(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int) -> Range<Int> {
        var (start, end) = (start, end)
        while start < end, bytes[start] == UInt8(ascii: " ") || bytes[start] == UInt8(ascii: "\t") { start += 1 }
        while end > start, bytes[end - 1] == UInt8(ascii: " ") || bytes[end - 1] == UInt8(ascii: "\t") { end -= 1 }
        return start..<end
    }

    /// Whether a name in lower case stands at `start`, in any case.
    static func isName(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ name: StaticString) -> Bool {
        let count = name.utf8CodeUnitCount
        guard start + count <= bytes.count else { return false }
        for index in 0..<count {
            let byte = bytes[start + index]
            let lower = (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) ? byte | 0x20 : byte
            guard lower == name.utf8Start[index] else { return false }
        }
        return true
    }

    static func isText(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ text: StaticString) -> Bool {
        guard start + text.utf8CodeUnitCount <= bytes.count else { return false }
        for index in 0..<text.utf8CodeUnitCount where bytes[start + index] != text.utf8Start[index] { return false }
        return true
    }

    /// `tchar` of RFC 9110, 5.6.2.
    package static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "!"), UInt8(ascii: "#"), UInt8(ascii: "$"),
            UInt8(ascii: "%"), UInt8(ascii: "&"), UInt8(ascii: "'"), UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "^"),
            UInt8(ascii: "`"), UInt8(ascii: "|"), UInt8(ascii: "~"):
            true
        default: false
        }
    }

    /// What a field's value may hold: `VCHAR`, space, tab and `obs-text` of RFC 9110, 5.5.
    package static func isValueByte(_ byte: UInt8) -> Bool { (byte >= 0x20 && byte != 0x7F) || byte == UInt8(ascii: "\t") }
}
