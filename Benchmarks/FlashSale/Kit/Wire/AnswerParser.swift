import NIOCore

/// Reads HTTP/1.1 answers from a stream of bytes, however they are split.
///
/// Of the head it keeps what a load generator judges by: the status, the body's length, `Connection`, `Retry-After`. A pure value: bytes go in,
/// an answer or a failure comes out. Bounds: 64 KiB of head or of trailers, `bodyLimit` bytes of body. After a failure the connection is of no use.
struct AnswerParser {
    /// What was read, and whether the connection may carry another request.
    struct Answer {
        var answer: HTTPAnswer
        var keepsAlive: Bool
    }

    private struct Head {
        var status = 0
        var retryAfter: Duration?
        var length: Int?
        var isChunked = false
        var keepsAlive = true
    }

    private enum State {
        /// Before or in the head.
        case head
        /// So many bytes of body are missing.
        case body(Head, missing: Int)
        /// A chunk's size line is next.
        case chunkSize(Head)
        /// So many bytes of the chunk are missing, then its line end.
        case chunk(Head, missing: Int)
        /// Fields behind the last chunk, up to an empty line.
        case trailers(Head)
        /// A body that ends with the connection.
        case untilClose(Head)
    }

    static let headLimit = 64 * 1024
    private let bodyLimit: Int
    private var state = State.head
    private var body = ByteBuffer()

    init(bodyLimit: Int) {
        self.bodyLimit = bodyLimit
    }

    /// Takes what it can from `bytes`; nil when more are needed, which are then to be given behind what is left.
    mutating func next(_ bytes: inout ByteBuffer) throws(HTTPFailure) -> Answer? {
        while true {
            switch state {
            case .head:
                guard let head = try readHead(&bytes) else { return nil }
                // 100 and 103 precede the answer; 101 cannot come, for nothing asked for it.
                if (100..<200).contains(head.status) { continue }
                body = ByteBuffer()
                if head.status == 204 || head.status == 304 { return finish(head) }
                if head.isChunked {
                    state = .chunkSize(head)
                } else if let length = head.length {
                    guard length <= bodyLimit else { throw .tooLarge }
                    state = .body(head, missing: length)
                } else {
                    state = .untilClose(head)
                }
            case .body(let head, let missing):
                guard bytes.readableBytes >= missing else { return nil }
                // The usual answer comes whole: its body is a slice of what was read.
                body = bytes.readSlice(length: missing) ?? ByteBuffer()
                return finish(head)
            case .chunkSize(let head):
                guard let line = try Self.line(&bytes) else { return nil }
                let digits = line.prefix { $0 != UInt8(ascii: ";") && $0 != UInt8(ascii: " ") }
                guard (1...8).contains(digits.count), let size = Int(String(decoding: digits, as: UTF8.self), radix: 16), size >= 0 else {
                    throw .malformed("a chunk without a size")
                }
                guard body.readableBytes + size <= bodyLimit else { throw .tooLarge }
                state = size == 0 ? .trailers(head) : .chunk(head, missing: size)
            case .chunk(let head, let missing):
                guard bytes.readableBytes >= missing + 2 else { return nil }
                if var part = bytes.readSlice(length: missing) { body.writeBuffer(&part) }
                guard bytes.readInteger(as: UInt16.self) == 0x0D0A else { throw .malformed("a chunk longer than its size") }
                state = .chunkSize(head)
            case .trailers(let head):
                guard let line = try Self.line(&bytes) else { return nil }
                if line.isEmpty { return finish(head) }
            case .untilClose:
                body.writeBuffer(&bytes)
                guard body.readableBytes <= bodyLimit else { throw .tooLarge }
                return nil
            }
        }
    }

    /// The connection has ended: the answer, if that is how it ends.
    mutating func end() -> Answer? {
        guard case .untilClose(var head) = state else { return nil }
        head.keepsAlive = false
        return finish(head)
    }

    private mutating func finish(_ head: Head) -> Answer {
        state = .head
        defer { body = ByteBuffer() }
        return Answer(
            answer: HTTPAnswer(status: head.status, retryAfter: head.retryAfter, body: body),
            keepsAlive: head.keepsAlive
        )
    }

    /// A line without its end, nil if it is not there yet.
    private static func line(_ bytes: inout ByteBuffer) throws(HTTPFailure) -> ArraySlice<UInt8>? {
        let view = bytes.readableBytesView
        guard let end = view.firstIndex(of: 0x0A) else {
            if view.count > headLimit { throw .malformed("a line beyond \(headLimit) bytes") }
            return nil
        }
        var line = Array(view[view.startIndex..<end])[...]
        if line.last == 0x0D { line.removeLast() }
        bytes.moveReaderIndex(forwardBy: end - view.startIndex + 1)
        return line
    }

    private mutating func readHead(_ bytes: inout ByteBuffer) throws(HTTPFailure) -> Head? {
        let result = bytes.withUnsafeReadableBytes { Self.head(in: $0) }
        switch result {
        case .more:
            if bytes.readableBytes > Self.headLimit { throw .malformed("a head beyond \(Self.headLimit) bytes") }
            return nil
        case .malformed(let why):
            throw .malformed(why)
        case .head(let head, let length):
            bytes.moveReaderIndex(forwardBy: length)
            return head
        }
    }

    private enum Reading {
        case more
        case malformed(String)
        case head(Head, length: Int)
    }

    /// The status line and the fields, in one pass over the bytes.
    private static func head(in bytes: UnsafeRawBufferPointer) -> Reading {
        var head = Head()
        var start = 0
        var isFirst = true
        while true {
            var end = start
            while end < bytes.count, bytes[end] != 0x0A { end += 1 }
            if end == bytes.count {
                // What cannot become a status line is said at once: such a server may wait for us.
                return isFirst && !mayBeStatusLine(bytes) ? .malformed("no status line") : .more
            }
            let line = UnsafeRawBufferPointer(rebasing: bytes[start..<(end > start && bytes[end - 1] == 0x0D ? end - 1 : end)])
            start = end + 1
            if isFirst {
                guard let (status, isOld) = statusLine(line) else { return .malformed("no status line") }
                head.status = status
                head.keepsAlive = !isOld
                isFirst = false
            } else if line.isEmpty {
                return .head(head, length: start)
            } else if let problem = field(line, &head) {
                return .malformed(problem)
            }
        }
    }

    private static let version = Array("HTTP/1.".utf8)

    private static func mayBeStatusLine(_ bytes: UnsafeRawBufferPointer) -> Bool {
        zip(bytes, version).allSatisfy { $0 == $1 }
    }

    private static func statusLine(_ line: UnsafeRawBufferPointer) -> (status: Int, isOld: Bool)? {
        guard line.count >= 12, mayBeStatusLine(line), line[7] == 0x30 || line[7] == 0x31, line[8] == 0x20 else { return nil }
        guard line.count == 12 || line[12] == 0x20 else { return nil }
        var status = 0
        for byte in line[9..<12] {
            guard (0x30...0x39).contains(byte) else { return nil }
            status = status * 10 + Int(byte - 0x30)
        }
        return status >= 100 ? (status, line[7] == 0x30) : nil
    }

    /// Takes in one field. Returns what is wrong with it.
    private static func field(_ line: UnsafeRawBufferPointer, _ head: inout Head) -> String? {
        // Most fields are none of ours, and their length says so.
        var colon = 0
        while colon < line.count, line[colon] != UInt8(ascii: ":") { colon += 1 }
        guard colon < line.count else { return "a field without a colon" }
        func isNamed(_ name: StaticString) -> Bool {
            name.withUTF8Buffer { name in
                for (index, byte) in name.enumerated() where line[index] | 0x20 != byte { return false }
                return true
            }
        }
        let value = trimmed(UnsafeRawBufferPointer(rebasing: line[(colon + 1)...]))
        // Text is made of a value only where the usual bytes are not the ones that came: each answer has these fields.
        func text() -> String { String(decoding: value, as: UTF8.self) }
        switch colon {
        case 14 where isNamed("content-length"):
            guard let length = number(value) ?? Int(text()), length >= 0, head.length == nil || head.length == length else {
                return "no content length"
            }
            head.length = length
        case 17 where isNamed("transfer-encoding"):
            guard text().lowercased() == "chunked" else { return "an unknown transfer encoding" }
            head.isChunked = true
        case 10 where isNamed("connection"):
            if value.elementsEqual(keepAlive) {
                head.keepsAlive = true
                return nil
            }
            for option in text().lowercased().split(separator: ",") {
                switch option.filter({ $0 != " " }) {
                case "close": head.keepsAlive = false
                case "keep-alive": head.keepsAlive = true
                default: break
                }
            }
        case 11 where isNamed("retry-after"):
            if let seconds = Int64(text()), (0...86_400).contains(seconds) { head.retryAfter = .seconds(seconds) }
        default: break
        }
        return nil
    }

    private static let keepAlive = Array("keep-alive".utf8)

    /// Without the spaces and tabs at both ends.
    private static func trimmed(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        var (start, end) = (0, bytes.count)
        while start < end, bytes[start] == 0x20 || bytes[start] == 0x09 { start += 1 }
        while end > start, bytes[end - 1] == 0x20 || bytes[end - 1] == 0x09 { end -= 1 }
        return UnsafeRawBufferPointer(rebasing: bytes[start..<end])
    }

    /// The number that at most nine digits are; nil for anything else.
    private static func number(_ bytes: UnsafeRawBufferPointer) -> Int? {
        guard (1...9).contains(bytes.count) else { return nil }
        var number = 0
        for byte in bytes {
            guard (0x30...0x39).contains(byte) else { return nil }
            number = number * 10 + Int(byte - 0x30)
        }
        return number
    }
}
