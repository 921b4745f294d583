// Invariant: a head is accepted only in a form that RFC 9112 allows and that every careful reader reads in the same way. What two readers could take in two
//   ways (section 11.2: a length beside a transfer coding, two lengths, folded or bare line ends, odd characters) is refused, and the connection ends.
// Bounds: the limits of `RequestReader.Limits`; one pass over the bytes.

import APIErrors
import Glibc
package import NIOCore
import StrictJSON

/// The head of one HTTP/1.1 or HTTP/1.0 request. Its bytes stay where they are, and values are read from them when somebody asks.
public struct HotRequestHead: Sendable {
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

    /// ``path``, as a router wants it: never empty, and beginning with a slash unless it is the `*` of OPTIONS.
    package var routerPath: String {
        let path = self.path
        return path.isEmpty || path.utf8.first == UInt8(ascii: "?") ? "/" + path : path
    }

    /// The method as sent.
    package var methodText: String { text(0..<methodEnd) }

    /// The host that the request is for; empty where HTTP/1.0 named none.
    public var host: String { text(hostBytes) }

    private func text(_ range: Range<Int>) -> String {
        bytes.withUnsafeReadableBytes { String(decoding: UnsafeRawBufferPointer(rebasing: $0[range]), as: UTF8.self) }
    }

    /// The id that the request target has between two texts, or nil. Bytes are compared, because comparing characters would cost more than everything else
    /// that is read here.
    public func id(after prefix: StaticString, before suffix: StaticString) -> Int64? {
        self.bytes.withUnsafeReadableBytes { bytes in
            let start = targetBytes.lowerBound + prefix.utf8CodeUnitCount
            let end = targetBytes.upperBound - suffix.utf8CodeUnitCount
            guard start < end, HotRequestHead.isText(bytes, targetBytes.lowerBound, prefix), HotRequestHead.isText(bytes, end, suffix)
            else { return nil }
            return Values.id(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
        }
    }

    /// The value of a field; its values joined by commas if it is there more than once (RFC 9110, 5.3).
    /// - Parameter name: in lower case
    public func field(_ name: StaticString) -> String? {
        guard names.mayContain(name) else { return nil }
        return self.bytes.withUnsafeReadableBytes { bytes in
            var found: String?
            HotRequestHead.eachLine(bytes, from: fieldsStart) { line, end in
                guard end - line > name.utf8CodeUnitCount, bytes[line + name.utf8CodeUnitCount] == UInt8(ascii: ":"),
                    HotRequestHead.isName(bytes, line, name)
                else { return }
                let value = HotRequestHead.trimmed(bytes, line + name.utf8CodeUnitCount + 1, end)
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
            HotRequestHead.eachLine(bytes, from: fieldsStart) { line, end in
                guard end - line > name.utf8CodeUnitCount, bytes[line + name.utf8CodeUnitCount] == UInt8(ascii: ":"),
                    HotRequestHead.isName(bytes, line, name)
                else { return }
                let range = HotRequestHead.trimmed(bytes, line + name.utf8CodeUnitCount + 1, end)
                found += 1
                equal = range.count == value.utf8CodeUnitCount && HotRequestHead.isText(bytes, range.lowerBound, value)
            }
            return found == 1 && equal
        }
    }

    /// Every field in the order of its line.
    package func eachField(_ body: (_ name: String, _ value: String) -> Void) {
        self.bytes.withUnsafeReadableBytes { bytes in
            HotRequestHead.eachLine(bytes, from: fieldsStart) { line, end in
                var colon = line
                while colon < end, bytes[colon] != UInt8(ascii: ":") { colon += 1 }
                guard colon < end else { return }
                let value = HotRequestHead.trimmed(bytes, colon + 1, end)
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

extension HotRequestHead {
    /// What the bytes at hand begin with.
    package enum Reading {
        /// The rest of the head has not come yet.
        case partial
        case head(HotRequestHead)
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
                return .head(HotRequestHead(parse, bytes: slice))
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

    fileprivate static func eachLine(_ bytes: UnsafeRawBufferPointer, from start: Int, _ body: (_ line: Int, _ end: Int) -> Void) {
        var line = start
        // Ends: every line takes at least the two bytes of its end.
        while line < bytes.count {
            let end = HotRequestHead.lineEnd(bytes, line)
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

    fileprivate static func trimmed(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int) -> Range<Int> {
        var (start, end) = (start, end)
        while start < end, bytes[start] == UInt8(ascii: " ") || bytes[start] == UInt8(ascii: "\t") { start += 1 }
        while end > start, bytes[end - 1] == UInt8(ascii: " ") || bytes[end - 1] == UInt8(ascii: "\t") { end -= 1 }
        return start..<end
    }

    /// Whether a name in lower case stands at `start`, in any case.
    fileprivate static func isName(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ name: StaticString) -> Bool {
        let count = name.utf8CodeUnitCount
        guard start + count <= bytes.count else { return false }
        for index in 0..<count {
            let byte = bytes[start + index]
            let lower = (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) ? byte | 0x20 : byte
            guard lower == name.utf8Start[index] else { return false }
        }
        return true
    }

    fileprivate static func isText(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ text: StaticString) -> Bool {
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

/// A set of field names with one bit for each length and first letter. A *no* is sure; a *yes* may be wrong, since names can share a bit.
private struct NameSet: Sendable {
    private var bits: UInt64 = 0

    mutating func insert(length: Int, first: UInt8) { bits |= NameSet.bit(length, first) }

    func mayContain(_ name: StaticString) -> Bool { bits & NameSet.bit(name.utf8CodeUnitCount, name.utf8Start[0]) != 0 }

    /// The bit in which a capital letter differs from a small one is left out. The factor seven keeps names of one length and neighbouring letters apart.
    private static func bit(_ length: Int, _ first: UInt8) -> UInt64 {
        1 << (UInt64(truncatingIfNeeded: length &* 7 &+ Int(first & 0x1F)) & 63)
    }
}

/// One pass over the bytes of a head.
private struct HeadParse {
    let bytes: UnsafeRawBufferPointer
    let limits: RequestReader.Limits
    var at = 0
    var methodEnd = 0
    var method = HotRequestHead.Method.other
    var target = 0..<0
    var authority: Range<Int>?
    var isHTTP10 = false
    var fieldsStart = 0
    var host: Range<Int>?
    var hasRequestID = false
    var requestID: Range<Int>?
    var names = NameSet()
    var contentLength: Int?
    var isChunked = false
    var saysClose = false
    var saysKeepAlive = false
    var expectsContinue = false
    var saysWhereFrom = false

    init(bytes: UnsafeRawBufferPointer, limits: RequestReader.Limits) {
        self.bytes = bytes
        self.limits = limits
    }

    /// False: the rest has not come yet.
    mutating func run() throws(RequestRefusal) -> Bool {
        guard try requestLine() else { return false }
        guard try fields() else { return false }
        // RFC 9112, 3.2: a request of HTTP/1.1 names its host, also where the target does.
        guard host != nil || isHTTP10 else { throw .host }
        if isChunked, contentLength != nil { throw .twoLengths }
        // HTTP/1.0 knows no transfer coding (RFC 9112, 6.1).
        if isChunked, isHTTP10 { throw .transferEncoding }
        return true
    }

    // MARK: METHOD SP target SP HTTP/1.x CRLF

    private mutating func requestLine() throws(RequestRefusal) -> Bool {
        while at < bytes.count, HotRequestHead.isTokenByte(bytes[at]) { at += 1 }
        guard at <= 32 else { throw .requestLine }
        guard at < bytes.count else { return false }
        guard at > 0, bytes[at] == UInt8(ascii: " ") else { throw .requestLine }
        methodEnd = at
        switch methodEnd {
        case 4 where HotRequestHead.isText(bytes, 0, "POST"): method = .post
        case 5 where HotRequestHead.isText(bytes, 0, "PATCH"): method = .patch
        default: break
        }
        at += 1
        let start = at
        while at < bytes.count, bytes[at] > 0x20, bytes[at] < 0x7F { at += 1 }
        guard at - start <= limits.targetBytes else { throw .headTooLarge }
        guard at < bytes.count else { return false }
        guard bytes[at] == UInt8(ascii: " "), at > start else { throw .requestLine }
        let end = at
        guard try version() else { return false }
        try judgeTarget(start..<end)
        fieldsStart = at
        return true
    }

    private mutating func version() throws(RequestRefusal) -> Bool {
        for expected in " HTTP/".utf8 {
            guard at < bytes.count else { return false }
            guard bytes[at] == expected else { throw .requestLine }
            at += 1
        }
        guard at + 2 < bytes.count else { return false }
        guard bytes[at] == UInt8(ascii: "1"), bytes[at + 1] == UInt8(ascii: ".") else { throw .version }
        switch bytes[at + 2] {
        case UInt8(ascii: "1"): break
        case UInt8(ascii: "0"): isHTTP10 = true
        default: throw .version
        }
        at += 3
        return try lineEnd(orThrow: .requestLine)
    }

    private mutating func lineEnd(orThrow refusal: RequestRefusal) throws(RequestRefusal) -> Bool {
        guard at < bytes.count else { return false }
        guard bytes[at] == UInt8(ascii: "\r") else { throw refusal }
        guard at + 1 < bytes.count else { return false }
        guard bytes[at + 1] == UInt8(ascii: "\n") else { throw refusal }
        at += 2
        return true
    }

    /// The four forms of RFC 9112, 3.2. The authority of an absolute address counts instead of `Host`.
    private mutating func judgeTarget(_ range: Range<Int>) throws(RequestRefusal) {
        let isConnect = methodEnd == 7 && HotRequestHead.isText(bytes, 0, "CONNECT")
        if isConnect { throw .connect }
        if bytes[range.lowerBound] == UInt8(ascii: "/") {
            target = range
            return
        }
        if range.count == 1, bytes[range.lowerBound] == UInt8(ascii: "*") {
            guard methodEnd == 7, HotRequestHead.isText(bytes, 0, "OPTIONS") else { throw .target }
            target = range
            return
        }
        var start: Int
        if HotRequestHead.isName(bytes, range.lowerBound, "http://") {
            start = range.lowerBound + 7
        } else if HotRequestHead.isName(bytes, range.lowerBound, "https://") {
            start = range.lowerBound + 8
        } else {
            throw .target
        }
        let authority = start
        while start < range.upperBound, bytes[start] != UInt8(ascii: "/"), bytes[start] != UInt8(ascii: "?") { start += 1 }
        guard isHost(authority..<start) else { throw .target }
        self.authority = authority..<start
        target = start..<range.upperBound
    }

    // MARK: name ":" OWS value OWS CRLF …, CRLF

    private mutating func fields() throws(RequestRefusal) -> Bool {
        var count = 0
        // Ends: every round takes at least one byte or leaves.
        while true {
            guard at < bytes.count else { return false }
            if bytes[at] == UInt8(ascii: "\r") {
                guard try lineEnd(orThrow: .field) else { return false }
                guard at <= limits.headBytes else { throw .headTooLarge }
                return true
            }
            guard let (name, value) = try HeadParse.field(bytes, &at) else {
                // A line whose end has not come yet may be as long as a whole one.
                return false
            }
            count += 1
            guard count <= limits.fields, value.upperBound - name.lowerBound <= limits.fieldBytes else { throw .headTooLarge }
            try note(name, value)
        }
    }

    /// One field line at `at`, which moves behind its line end. Nil: the rest has not come yet.
    static func field(_ bytes: UnsafeRawBufferPointer, _ at: inout Int) throws(RequestRefusal) -> (name: Range<Int>, value: Range<Int>)? {
        let start = at
        var index = at
        while index < bytes.count, HotRequestHead.isTokenByte(bytes[index]) { index += 1 }
        guard index < bytes.count else { return nil }
        guard bytes[index] == UInt8(ascii: ":"), index > start else { throw .field }
        let nameEnd = index
        index += 1
        while index < bytes.count, HotRequestHead.isValueByte(bytes[index]) { index += 1 }
        guard index < bytes.count else { return nil }
        guard bytes[index] == UInt8(ascii: "\r") else { throw .field }
        guard index + 1 < bytes.count else { return nil }
        guard bytes[index + 1] == UInt8(ascii: "\n") else { throw .field }
        at = index + 2
        return (start..<nameEnd, HotRequestHead.trimmed(bytes, nameEnd + 1, index))
    }

    /// Takes over what decides about the message itself.
    private mutating func note(_ name: Range<Int>, _ value: Range<Int>) throws(RequestRefusal) {
        // A name has at least one byte.
        names.insert(length: name.count, first: bytes[name.lowerBound])
        switch name.count {
        case 4 where HotRequestHead.isName(bytes, name.lowerBound, "host"):
            guard host == nil, isHost(value) else { throw .host }
            host = value
        case 6 where HotRequestHead.isName(bytes, name.lowerBound, "expect"):
            if value.count == 12, HotRequestHead.isName(bytes, value.lowerBound, "100-continue") { expectsContinue = true }
        case 6 where HotRequestHead.isName(bytes, name.lowerBound, "origin"),
            9 where HotRequestHead.isName(bytes, name.lowerBound, "forwarded"),
            14 where HotRequestHead.isName(bytes, name.lowerBound, "sec-fetch-site"),
            15 where HotRequestHead.isName(bytes, name.lowerBound, "x-forwarded-for"):
            saysWhereFrom = true
        case 10 where HotRequestHead.isName(bytes, name.lowerBound, "connection"): noteConnection(value, isProxy: false)
        case 12 where HotRequestHead.isName(bytes, name.lowerBound, "x-request-id"):
            // Two fields make a list, and a list is no id.
            requestID = hasRequestID || !HotRequestID.isRequestID(bytes[value]) ? nil : value
            hasRequestID = true
        case 14 where HotRequestHead.isName(bytes, name.lowerBound, "content-length"):
            // A tab behind the number is legal white space, but widely used readers (llhttp, nginx) refuse it. What two readers take in two ways is refused.
            guard contentLength == nil, !value.isEmpty, !hasTab(behind: value) else { throw .contentLength }
            contentLength = try number(value)
        case 16 where HotRequestHead.isName(bytes, name.lowerBound, "proxy-connection"): noteConnection(value, isProxy: true)
        case 17 where HotRequestHead.isName(bytes, name.lowerBound, "transfer-encoding"):
            guard !isChunked, value.count == 7, HotRequestHead.isName(bytes, value.lowerBound, "chunked") else {
                throw .transferEncoding
            }
            isChunked = true
        default: break
        }
    }

    /// Whether a tab stands between a value and the end of its line.
    private func hasTab(behind value: Range<Int>) -> Bool {
        bytes[value.upperBound...].prefix { $0 != UInt8(ascii: "\r") }.contains(UInt8(ascii: "\t"))
    }

    /// The digits of a `Content-Length`. A number of more than 64 bits counts as the largest one, which is too large for every port.
    private func number(_ range: Range<Int>) throws(RequestRefusal) -> Int {
        var length = 0
        for index in range {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[index]) else { throw .contentLength }
            let (scaled, overflow) = length.multipliedReportingOverflow(by: 10)
            let (sum, overflow2) = scaled.addingReportingOverflow(Int(bytes[index] - UInt8(ascii: "0")))
            length = overflow || overflow2 ? Int.max : sum
        }
        return length
    }

    /// `close` and `keep-alive` in any case and anywhere in the list. `Proxy-Connection` was never standard, and only its wish to end the connection is
    /// honoured.
    private mutating func noteConnection(_ value: Range<Int>, isProxy: Bool) {
        var start = value.lowerBound
        // Ends: `start` grows in each round.
        while start < value.upperBound {
            var end = start
            while end < value.upperBound, bytes[end] != UInt8(ascii: ",") { end += 1 }
            let token = HotRequestHead.trimmed(bytes, start, end)
            if token.count == 5, HotRequestHead.isName(bytes, token.lowerBound, "close") { saysClose = true }
            if !isProxy, token.count == 10, HotRequestHead.isName(bytes, token.lowerBound, "keep-alive") { saysKeepAlive = true }
            start = end + 1
        }
    }

    /// `uri-host [":" port]` of RFC 3986, 3.2, which is not empty: http knows no address without a host (RFC 9110, 4.2.1).
    private func isHost(_ range: Range<Int>) -> Bool {
        var at = range.lowerBound
        if at < range.upperBound, bytes[at] == UInt8(ascii: "[") {
            at += 1
            let start = at
            while at < range.upperBound, isAddressByte(bytes[at]) { at += 1 }
            guard at > start, at < range.upperBound, bytes[at] == UInt8(ascii: "]") else { return false }
            at += 1
        } else {
            let start = at
            while at < range.upperBound, isNameByte(at, range.upperBound) { at += 1 }
            guard at > start else { return false }
        }
        guard at < range.upperBound else { return true }
        guard bytes[at] == UInt8(ascii: ":"), range.upperBound - at <= 6 else { return false }
        return bytes[(at + 1)..<range.upperBound].allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    }

    /// What stands between the brackets of an IPv6 address or a later form.
    private func isAddressByte(_ byte: UInt8) -> Bool {
        byte != UInt8(ascii: "]") && byte != UInt8(ascii: "[") && byte != UInt8(ascii: "%") && isRegularNameByte(byte)
            || byte == UInt8(ascii: ":")
    }

    private func isNameByte(_ at: Int, _ end: Int) -> Bool {
        if bytes[at] == UInt8(ascii: "%") {
            return at + 2 < end && JSONParser.nibble(bytes[at + 1]) != nil && JSONParser.nibble(bytes[at + 2]) != nil
        }
        return isRegularNameByte(bytes[at])
    }

    /// `unreserved` and `sub-delims` of RFC 3986, 2.
    private func isRegularNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"), UInt8(ascii: "!"), UInt8(ascii: "$"),
            UInt8(ascii: "&"), UInt8(ascii: "'"), UInt8(ascii: "("), UInt8(ascii: ")"), UInt8(ascii: "*"), UInt8(ascii: "+"),
            UInt8(ascii: ","), UInt8(ascii: ";"), UInt8(ascii: "="):
            true
        default: false
        }
    }
}

extension RequestReader {
    /// One field line of a trailer section at `at`; nil: the rest has not come yet. `true`: the name is one that decides about the message.
    package static func trailer(_ bytes: UnsafeRawBufferPointer, _ at: inout Int) throws(RequestRefusal) -> Bool? {
        guard let (name, _) = try HeadParse.field(bytes, &at) else { return nil }
        switch name.count {
        case 4: return HotRequestHead.isName(bytes, name.lowerBound, "host")
        case 14: return HotRequestHead.isName(bytes, name.lowerBound, "content-length")
        case 17: return HotRequestHead.isName(bytes, name.lowerBound, "transfer-encoding")
        default: return false
        }
    }
}
