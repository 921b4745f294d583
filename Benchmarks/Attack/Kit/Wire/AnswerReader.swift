// Reads answers from a stream of bytes, as strictly as RFC 9112 has them written: what a lenient client would mend is a fault here.
//
// Invariant: every byte belongs to exactly one answer; where an answer ends is decided by its own fields and its request's method alone.
// Bounds: `maximumHead`, `maximumBody`.
// Stop: the first fault is final.

/// Turns bytes into answers.
struct AnswerReader {
    static let maximumHead = 64 * 1024
    static let maximumBody = 8 * 1024 * 1024

    private var bytes: [UInt8] = []
    private var start = 0
    /// Methods of the requests that are answered, in their order; later ones are taken for GET.
    private let methods: [String]
    private var answered = 0
    /// An answer whose body ends with the connection.
    private var open: Answer?
    private(set) var fault: AnswerFault?

    init(methods: [String] = []) {
        self.methods = methods
    }

    mutating func append(_ more: [UInt8]) {
        bytes.append(contentsOf: more)
    }

    /// The bytes that no answer was made of yet.
    var rest: [UInt8] { Array(bytes[start...]) }

    /// The next whole answer, interim ones included; nil while more bytes are needed.
    mutating func next() throws(AnswerFault) -> Answer? {
        if let fault { throw fault }
        guard open == nil else { return nil }
        do throws(AnswerFault) {
            return try read()
        } catch {
            fault = error
            throw error
        }
    }

    /// The connection has ended: an answer that reaches to the end is whole now.
    /// - Throws: ``AnswerFault/cutOff`` if there is part of an answer
    mutating func finish() throws(AnswerFault) -> Answer? {
        if let fault { throw fault }
        if var answer = open {
            answer.body = Array(bytes[start...])
            start = bytes.count
            open = nil
            answered += 1
            return answer
        }
        guard start == bytes.count else {
            fault = bytes.count - start >= 5 && !rest.starts(with: "HTTP/".utf8) ? .notHTTP(rest.latin1.shown(limit: 60)) : .cutOff
            throw fault ?? .cutOff
        }
        return nil
    }

    private mutating func read() throws(AnswerFault) -> Answer? {
        guard start < bytes.count else { return nil }
        let beginning = bytes[start...].prefix(5)
        guard "HTTP/".utf8.starts(with: beginning) else { throw .notHTTP(rest.latin1.shown(limit: 60)) }
        guard let headEnd = find([13, 10, 13, 10], from: start) else {
            if bytes.count - start > Self.maximumHead { throw .tooLarge }
            return nil
        }
        // The line end of the last line belongs to it.
        var lines = Self.lines(bytes[start..<headEnd + 2])
        var answer = try Self.statusLine(lines.removeFirst())
        for line in lines { answer.fields.append(try Self.field(line)) }
        let bodyStart = headEnd + 4
        let method = answered < methods.count ? methods[answered] : "GET"
        let lengths = answer.values("content-length")
        let codings = answer.values("transfer-encoding")
        let hasNoBody = answer.isInterim || answer.status == 204
        if hasNoBody, !lengths.isEmpty || !codings.isEmpty {
            throw .framing("\(answer.status) with a Content-Length or Transfer-Encoding (RFC 9110, 8.6; RFC 9112, 6.1)")
        }
        if !lengths.isEmpty, !codings.isEmpty { throw .framing("Content-Length and Transfer-Encoding in one answer") }
        if lengths.count > 1 || codings.count > 1 { throw .framing("a body's length twice in one answer") }
        if hasNoBody || answer.status == 304 || method == "HEAD" || (method == "CONNECT" && answer.isSuccess) {
            answer.framing = .none
            return take(answer, end: bodyStart)
        }
        if let coding = codings.first {
            guard coding.lowercased() == "chunked" else { throw .framing("Transfer-Encoding: \(coding.shown())") }
            guard let (body, end) = try chunks(from: bodyStart) else { return nil }
            answer.framing = .chunked
            answer.body = body
            return take(answer, end: end)
        }
        if let text = lengths.first {
            guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let length = Int(text) else {
                throw .framing("Content-Length: \(text.shown())")
            }
            guard length <= Self.maximumBody else { throw .tooLarge }
            guard bytes.count - bodyStart >= length else { return nil }
            answer.body = Array(bytes[bodyStart..<bodyStart + length])
            return take(answer, end: bodyStart + length)
        }
        answer.framing = .connection
        open = answer
        start = bodyStart
        return nil
    }

    private mutating func take(_ answer: Answer, end: Int) -> Answer {
        start = end
        if start == bytes.count {
            bytes.removeAll(keepingCapacity: true)
            start = 0
        }
        if !answer.isInterim { answered += 1 }
        return answer
    }

    private func find(_ pattern: [UInt8], from index: Int) -> Int? {
        var at = index
        while at + pattern.count <= bytes.count {
            if bytes[at] == pattern[0], bytes[at..<at + pattern.count].elementsEqual(pattern) { return at }
            at += 1
        }
        return nil
    }

    /// The lines of a head, which is known to end with CRLF, without their line ends.
    private static func lines(_ head: ArraySlice<UInt8>) -> [ArraySlice<UInt8>] {
        var lines: [ArraySlice<UInt8>] = []
        var from = head.startIndex
        var at = from
        while at + 1 < head.endIndex {
            if head[at] == 13, head[at + 1] == 10 {
                lines.append(head[from..<at])
                at += 2
                from = at
            } else {
                at += 1
            }
        }
        return lines
    }

    /// `HTTP/1.x SP 3DIGIT SP reason`.
    private static func statusLine(_ line: ArraySlice<UInt8>) throws(AnswerFault) -> Answer {
        let text = Array(line).latin1
        guard text.hasPrefix("HTTP/1.1 ") || text.hasPrefix("HTTP/1.0 ") else { throw .notHTTP(text.shown(limit: 60)) }
        let rest = text.dropFirst(9)
        let digits = rest.prefix(3)
        guard digits.utf8.count == 3, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let status = Int(digits),
            (100...599).contains(status), rest.dropFirst(3).first == " "
        else { throw .notHTTP(text.shown(limit: 60)) }
        guard rest.unicodeScalars.allSatisfy({ $0 == "\t" || ($0.value >= 0x20 && $0.value != 0x7F) }) else {
            throw .notHTTP(text.shown(limit: 60))
        }
        return Answer(version: String(text.prefix(8)), status: status)
    }

    private static func field(_ line: ArraySlice<UInt8>) throws(AnswerFault) -> Answer.Field {
        guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > line.startIndex,
            line[..<colon].allSatisfy(RequestFraming.isTokenByte),
            line[colon...].allSatisfy({ $0 == 9 || ($0 >= 0x20 && $0 != 0x7F) })
        else { throw .field(Array(line).latin1.shown(limit: 60)) }
        var value = line[line.index(after: colon)...]
        while let first = value.first, first == 32 || first == 9 { value.removeFirst() }
        while let last = value.last, last == 32 || last == 9 { value.removeLast() }
        return Answer.Field(name: Array(line[..<colon]).latin1, value: Array(value).latin1)
    }

    /// The body of a chunked answer and where it ends; nil while more is needed.
    private func chunks(from index: Int) throws(AnswerFault) -> (body: [UInt8], end: Int)? {
        var body: [UInt8] = []
        var at = index
        while true {
            guard let lineEnd = find([13, 10], from: at) else {
                if bytes.count - at > 1024 { throw .framing("a chunk's size line without an end") }
                return nil
            }
            let size = Array(bytes[at..<lineEnd]).latin1.prefix { $0 != ";" }
            guard !size.isEmpty, size.utf8.count <= 8, size.allSatisfy(\.isHexDigit), let count = Int(size, radix: 16) else {
                throw .framing("a chunk's size: \(Array(bytes[at..<lineEnd]).latin1.shown(limit: 40))")
            }
            at = lineEnd + 2
            if count == 0 {
                // Trailer fields end with an empty line.
                while true {
                    guard let end = find([13, 10], from: at) else { return nil }
                    if end == at { return (body, at + 2) }
                    at = end + 2
                }
            }
            guard body.count + count <= Self.maximumBody else { throw .tooLarge }
            guard bytes.count >= at + count + 2 else { return nil }
            body.append(contentsOf: bytes[at..<at + count])
            guard bytes[at + count] == 13, bytes[at + count + 1] == 10 else { throw .framing("a chunk that does not end where it says") }
            at += count + 2
        }
    }
}
