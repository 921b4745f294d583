// Invariant: what is read here is what the HTTP decoder would read from the same bytes. Anything that two readers could take in two ways (RFC 9112, 11.2: a length
//   beside a transfer coding, two lengths, folded or bare line ends, odd characters) is not read here but left to the decoder.
// Bounds: `maximumBytes` of head; one pass.

import NIOCore

/// The head of one HTTP/1.1 request in its plainest form, read where it lies.
public struct HotRequestHead: Sendable {
    /// A longer head is the decoder's.
    static var maximumBytes: Int { 8192 }

    /// The method, such as `PATCH`.
    public let method: Method
    /// The request target's bytes.
    private let target: ByteBuffer
    /// The head's bytes from the first field on.
    private let fields: ByteBuffer

    /// The request target, as sent.
    public var path: String { String(buffer: self.target) }

    /// The id that the request target has between two texts, or nil. Bytes are compared: characters cost more than all else that is read here.
    public func id(after prefix: StaticString, before suffix: StaticString) -> Int64? {
        self.target.withUnsafeReadableBytes { bytes in
            let (start, end) = (prefix.utf8CodeUnitCount, bytes.count - suffix.utf8CodeUnitCount)
            guard start < end, HotRequestHead.isText(bytes, 0, prefix), HotRequestHead.isText(bytes, end, suffix) else { return nil }
            return Values.id(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
        }
    }

    /// The methods that a hot path can have.
    public enum Method: Sendable, Equatable {
        case patch, post
        case other
    }

    /// What the bytes at hand begin with.
    enum Reading {
        /// The rest of the head has not come yet.
        case partial
        /// A head of `length` bytes; a body of `contentLength` follows.
        case head(HotRequestHead, length: Int, contentLength: Int)
        /// Something that only the decoder can judge, and of which the end is not known.
        case unclear
    }

    /// The value of a field; its values joined by commas if it is there more than once (RFC 9110, 5.3).
    /// - Parameter name: in lower case
    public func field(_ name: StaticString) -> String? {
        self.fields.withUnsafeReadableBytes { bytes in
            var found: String?
            var line = 0
            while line < bytes.count {
                let end = HotRequestHead.endOfLine(bytes, from: line)
                if end - line > name.utf8CodeUnitCount, bytes[line + name.utf8CodeUnitCount] == UInt8(ascii: ":"),
                    HotRequestHead.isName(bytes, line, name)
                {
                    let value = HotRequestHead.trimmed(bytes, line + name.utf8CodeUnitCount + 1, end)
                    let text = String(decoding: UnsafeRawBufferPointer(rebasing: bytes[value]), as: UTF8.self)
                    found = found.map { $0 + ", " + text } ?? text
                }
                line = end + 2
            }
            return found
        }
    }

    /// Reads a head from the beginning of `buffer`, which is not changed.
    static func read(_ buffer: ByteBuffer) -> Reading {
        buffer.withUnsafeReadableBytes { bytes in
            // METHOD SP target SP HTTP/1.1 CRLF
            var at = 0
            while at < bytes.count, (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(bytes[at]) { at += 1 }
            guard at > 0, at <= 16 else { return bytes.isEmpty ? .partial : .unclear }
            let methodEnd = at
            guard at < bytes.count else { return .partial }
            guard bytes[at] == UInt8(ascii: " ") else { return .unclear }
            at += 1
            let pathStart = at
            while at < bytes.count, bytes[at] > 0x20, bytes[at] < 0x7F { at += 1 }
            guard at < bytes.count else { return HotRequestHead.more(bytes.count) }
            guard bytes[at] == UInt8(ascii: " "), at > pathStart, bytes[pathStart] == UInt8(ascii: "/") else { return .unclear }
            let pathEnd = at
            for expected in " HTTP/1.1\r\n".utf8 {
                guard at < bytes.count else { return HotRequestHead.more(bytes.count) }
                guard bytes[at] == expected else { return .unclear }
                at += 1
            }
            let fieldsStart = at

            // name ":" OWS value OWS CRLF …, CRLF
            var contentLength: Int?
            var hasHost = false
            while true {
                guard at + 1 < bytes.count else { return HotRequestHead.more(bytes.count) }
                if bytes[at] == UInt8(ascii: "\r") {
                    guard bytes[at + 1] == UInt8(ascii: "\n") else { return .unclear }
                    break
                }
                let nameStart = at
                while at < bytes.count, HotRequestHead.isNameByte(bytes[at]) { at += 1 }
                guard at < bytes.count else { return HotRequestHead.more(bytes.count) }
                guard bytes[at] == UInt8(ascii: ":"), at > nameStart else { return .unclear }
                let nameEnd = at
                at += 1
                while at < bytes.count, HotRequestHead.isValueByte(bytes[at]) { at += 1 }
                guard at + 1 < bytes.count else { return HotRequestHead.more(bytes.count) }
                guard bytes[at] == UInt8(ascii: "\r"), bytes[at + 1] == UInt8(ascii: "\n") else { return .unclear }
                let value = HotRequestHead.trimmed(bytes, nameEnd + 1, at)
                switch nameEnd - nameStart {
                case 4 where HotRequestHead.isName(bytes, nameStart, "host"):
                    // Two hosts, or none, are an error (RFC 9112, 3.2).
                    guard !hasHost else { return .unclear }
                    hasHost = true
                case 14 where HotRequestHead.isName(bytes, nameStart, "content-length"):
                    guard contentLength == nil, !value.isEmpty, value.count <= 9 else { return .unclear }
                    var length = 0
                    for index in value {
                        guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[index]) else { return .unclear }
                        length = length * 10 + Int(bytes[index] - UInt8(ascii: "0"))
                    }
                    contentLength = length
                case 10 where HotRequestHead.isName(bytes, nameStart, "connection"):
                    // A last request, and an upgrade, are for those who know how to go on after it.
                    guard value.count == 10, HotRequestHead.isName(bytes, value.lowerBound, "keep-alive") else { return .unclear }
                case 17 where HotRequestHead.isName(bytes, nameStart, "transfer-encoding"),
                    7 where HotRequestHead.isName(bytes, nameStart, "upgrade"),
                    6 where HotRequestHead.isName(bytes, nameStart, "expect"), 7 where HotRequestHead.isName(bytes, nameStart, "trailer"):
                    return .unclear
                default: break
                }
                at += 2
            }
            guard hasHost, at + 2 <= HotRequestHead.maximumBytes else { return .unclear }
            // Within the readable bytes, as `at` shows.
            guard let fields = buffer.getSlice(at: buffer.readerIndex + fieldsStart, length: at - fieldsStart) else { return .unclear }
            let method: Method =
                switch methodEnd {
                case 4 where HotRequestHead.isText(bytes, 0, "POST"): .post
                case 5 where HotRequestHead.isText(bytes, 0, "PATCH"): .patch
                default: .other
                }
            guard let target = buffer.getSlice(at: buffer.readerIndex + pathStart, length: pathEnd - pathStart) else { return .unclear }
            return .head(HotRequestHead(method: method, target: target, fields: fields), length: at + 2, contentLength: contentLength ?? 0)
        }
    }

    private static func more(_ count: Int) -> Reading { count < self.maximumBytes ? .partial : .unclear }

    private static func endOfLine(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        var at = start
        while at < bytes.count, bytes[at] != UInt8(ascii: "\r") { at += 1 }
        return at
    }

    private static func trimmed(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int) -> Range<Int> {
        var (start, end) = (start, end)
        while start < end, bytes[start] == UInt8(ascii: " ") || bytes[start] == UInt8(ascii: "\t") { start += 1 }
        while end > start, bytes[end - 1] == UInt8(ascii: " ") || bytes[end - 1] == UInt8(ascii: "\t") { end -= 1 }
        return start..<end
    }

    /// Whether a name in lower case stands at `start`, in any case.
    private static func isName(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ name: StaticString) -> Bool {
        let count = name.utf8CodeUnitCount
        guard start + count <= bytes.count else { return false }
        for index in 0..<count {
            let byte = bytes[start + index]
            let lower = (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) ? byte | 0x20 : byte
            guard lower == name.utf8Start[index] else { return false }
        }
        return true
    }

    private static func isText(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ text: StaticString) -> Bool {
        for index in 0..<text.utf8CodeUnitCount where bytes[start + index] != text.utf8Start[index] { return false }
        return true
    }

    /// `tchar` of RFC 9110, 5.6.2.
    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        // Legal and never seen: the decoder may have them.
        default: false
        }
    }

    private static func isValueByte(_ byte: UInt8) -> Bool { (byte >= 0x20 && byte < 0x7F) || byte == UInt8(ascii: "\t") }
}
