// Invariant and bounds: as in RequestHead.swift.

import NIOCore
import StrictJSON

/// One pass over the bytes of a head.
struct HeadParse {
    let bytes: UnsafeRawBufferPointer
    let limits: RequestReader.Limits
    var at = 0
    var methodEnd = 0
    var method = RequestHead.Method.other
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

    /// Reads the head. False: its rest has not come yet.
    /// - Throws: why the head is refused
    mutating func run() throws(RequestRefusal) -> Bool {
        guard try requestLine() else { return false }
        guard try fields() else { return false }
        // RFC 9112, 3.2: a request of HTTP/1.1 has a `Host`, even where the target names the host.
        guard host != nil || isHTTP10 else { throw .host }
        if isChunked, contentLength != nil { throw .twoLengths }
        // HTTP/1.0 knows no transfer coding (RFC 9112, 6.1).
        if isChunked, isHTTP10 { throw .transferEncoding }
        return true
    }

    // MARK: METHOD SP target SP HTTP/1.x CRLF

    private mutating func requestLine() throws(RequestRefusal) -> Bool {
        while at < bytes.count, RequestHead.isTokenByte(bytes[at]) { at += 1 }
        guard at <= 32 else { throw .requestLine }
        guard at < bytes.count else { return false }
        guard at > 0, bytes[at] == UInt8(ascii: " ") else { throw .requestLine }
        methodEnd = at
        switch methodEnd {
        case 4 where RequestHead.isText(bytes, 0, "POST"): method = .post
        case 5 where RequestHead.isText(bytes, 0, "PATCH"): method = .patch
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

    /// Takes a target in one of the forms of RFC 9112, 3.2; `CONNECT` is refused. The authority of an absolute address counts instead of `Host`.
    private mutating func judgeTarget(_ range: Range<Int>) throws(RequestRefusal) {
        let isConnect = methodEnd == 7 && RequestHead.isText(bytes, 0, "CONNECT")
        if isConnect { throw .connect }
        if bytes[range.lowerBound] == UInt8(ascii: "/") {
            target = range
            return
        }
        if range.count == 1, bytes[range.lowerBound] == UInt8(ascii: "*") {
            guard methodEnd == 7, RequestHead.isText(bytes, 0, "OPTIONS") else { throw .target }
            target = range
            return
        }
        var start: Int
        if RequestHead.isName(bytes, range.lowerBound, "http://") {
            start = range.lowerBound + 7
        } else if RequestHead.isName(bytes, range.lowerBound, "https://") {
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

    /// Reads one field line at `at`, which moves behind the line's end. Nil: the rest of the line has not come yet.
    static func field(_ bytes: UnsafeRawBufferPointer, _ at: inout Int) throws(RequestRefusal) -> (name: Range<Int>, value: Range<Int>)? {
        let start = at
        var index = at
        while index < bytes.count, RequestHead.isTokenByte(bytes[index]) { index += 1 }
        guard index < bytes.count else { return nil }
        guard bytes[index] == UInt8(ascii: ":"), index > start else { throw .field }
        let nameEnd = index
        index += 1
        while index < bytes.count, RequestHead.isValueByte(bytes[index]) { index += 1 }
        guard index < bytes.count else { return nil }
        guard bytes[index] == UInt8(ascii: "\r") else { throw .field }
        guard index + 1 < bytes.count else { return nil }
        guard bytes[index + 1] == UInt8(ascii: "\n") else { throw .field }
        at = index + 2
        return (start..<nameEnd, RequestHead.trimmed(bytes, nameEnd + 1, index))
    }

    /// Takes over a field that decides how the message is read or answered.
    private mutating func note(_ name: Range<Int>, _ value: Range<Int>) throws(RequestRefusal) {
        // A name has at least one byte.
        names.insert(length: name.count, first: bytes[name.lowerBound])
        switch name.count {
        case 4 where RequestHead.isName(bytes, name.lowerBound, "host"):
            guard host == nil, isHost(value) else { throw .host }
            host = value
        case 6 where RequestHead.isName(bytes, name.lowerBound, "expect"):
            if value.count == 12, RequestHead.isName(bytes, value.lowerBound, "100-continue") { expectsContinue = true }
        case 6 where RequestHead.isName(bytes, name.lowerBound, "origin"),
            9 where RequestHead.isName(bytes, name.lowerBound, "forwarded"),
            14 where RequestHead.isName(bytes, name.lowerBound, "sec-fetch-site"),
            15 where RequestHead.isName(bytes, name.lowerBound, "x-forwarded-for"):
            saysWhereFrom = true
        case 10 where RequestHead.isName(bytes, name.lowerBound, "connection"): noteConnection(value, isProxy: false)
        case 12 where RequestHead.isName(bytes, name.lowerBound, "x-request-id"):
            // Two fields make a list, and a list is no id.
            requestID = hasRequestID || !HotRequestID.isRequestID(bytes[value]) ? nil : value
            hasRequestID = true
        case 14 where RequestHead.isName(bytes, name.lowerBound, "content-length"):
            // A tab after the number is legal white space, but widely used readers (llhttp, nginx) refuse it. What two readers take in two ways is refused.
            guard contentLength == nil, !value.isEmpty, !hasTab(behind: value) else { throw .contentLength }
            contentLength = try number(value)
        case 16 where RequestHead.isName(bytes, name.lowerBound, "proxy-connection"): noteConnection(value, isProxy: true)
        case 17 where RequestHead.isName(bytes, name.lowerBound, "transfer-encoding"):
            guard !isChunked, value.count == 7, RequestHead.isName(bytes, value.lowerBound, "chunked") else {
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
            let token = RequestHead.trimmed(bytes, start, end)
            if token.count == 5, RequestHead.isName(bytes, token.lowerBound, "close") { saysClose = true }
            if !isProxy, token.count == 10, RequestHead.isName(bytes, token.lowerBound, "keep-alive") { saysKeepAlive = true }
            start = end + 1
        }
    }

    /// Whether a range is `uri-host [":" port]` of RFC 3986, 3.2, and not empty: each address of http has a host (RFC 9110, 4.2.1).
    private func isHost(_ range: Range<Int>) -> Bool {
        var at = range.lowerBound
        if at < range.upperBound, bytes[at] == UInt8(ascii: "[") {
            at += 1
            let start = at
            while at < range.upperBound, isAddressByte(bytes[at]) { at += 1 }
            guard at < range.upperBound, bytes[at] == UInt8(ascii: "]"), IPLiteral.isOne(bytes[start..<at]) else { return false }
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

    /// Whether a byte may stand between the brackets of an IPv6 address or a later form.
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
    /// Reads one field line of a trailer at `at`. Nil: the rest of the line has not come yet. `true`: the field is one that decides how a message is read.
    package static func trailer(_ bytes: UnsafeRawBufferPointer, _ at: inout Int) throws(RequestRefusal) -> Bool? {
        guard let (name, _) = try HeadParse.field(bytes, &at) else { return nil }
        switch name.count {
        case 4: return RequestHead.isName(bytes, name.lowerBound, "host")
        case 14: return RequestHead.isName(bytes, name.lowerBound, "content-length")
        case 17: return RequestHead.isName(bytes, name.lowerBound, "transfer-encoding")
        default: return false
        }
    }
}
