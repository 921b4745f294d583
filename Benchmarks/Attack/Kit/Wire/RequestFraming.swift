// What a stream of bytes means as requests, by RFC 9112 and this project's contract alone: the reading that the servers' answers are compared with.
//
// Invariant: an element is `whole` only if every reader that keeps to the RFC ends it at the same byte. Where the RFC leaves a choice (bare line ends, folded
//   lines, control bytes that may be replaced) the element is `doubtful`, and nothing is said about what follows it.
// Bounds: one pass; a body is never longer than the bytes given.
// Stop: behind an element that is not `whole` nothing more is read.

/// A strict reader of requests.
struct RequestFraming {
    /// One part of the stream, in order.
    enum Element: Equatable {
        /// A request whose end is beyond doubt.
        case whole(Range<Int>, Request)
        /// Bytes that must be refused, and behind which nobody can know where the next request begins.
        ///
        /// With a method the head was whole, and the fault is in the body: a server that answers before the body has come has answered already.
        case refused(from: Int, String, bodyOf: String?)
        /// Bytes that one reader may refuse and another may take.
        case doubtful(from: Int, String)
        /// The beginning of a request whose rest has not been sent.
        case incomplete(from: Int, bodyOf: String?)
    }

    /// What matters of a whole request.
    struct Request: Equatable {
        var method: String
        /// Whether the connection must be closed behind its answer.
        var isLast: Bool
        /// Why it must be refused although its end is known; nil if nothing is wrong with its head.
        var fault: String?
    }

    private enum Stop: Error {
        case refused(String)
        case doubtful(String)
        case incomplete
    }

    private let bytes: [UInt8]
    private var at = 0
    /// The method of the request whose body is read.
    private var bodyOf: String?

    private init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Reads everything.
    static func read(_ bytes: [UInt8]) -> [Element] {
        var reader = RequestFraming(bytes)
        var elements: [Element] = []
        while reader.at < bytes.count {
            let start = reader.at
            reader.bodyOf = nil
            do throws(Stop) {
                guard let request = try reader.request() else { break }
                elements.append(.whole(start..<reader.at, request))
                if request.isLast { break }
            } catch {
                switch error {
                case .refused(let why): elements.append(.refused(from: start, why, bodyOf: reader.bodyOf))
                case .doubtful(let why): elements.append(.doubtful(from: start, why))
                case .incomplete: elements.append(.incomplete(from: start, bodyOf: reader.bodyOf))
                }
                break
            }
        }
        return elements
    }

    /// `tchar` of RFC 9110, 5.6.2.
    static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }

    /// The next line without its end. A line that ends in anything but CRLF is doubtful.
    private mutating func line() throws(Stop) -> ArraySlice<UInt8> {
        var end = at
        while end < bytes.count, bytes[end] != 13, bytes[end] != 10 { end += 1 }
        guard end < bytes.count else { throw .incomplete }
        if bytes[end] == 10 { throw .doubtful("a line that ends in LF alone") }
        guard end + 1 < bytes.count else { throw .incomplete }
        guard bytes[end + 1] == 10 else { throw .doubtful("a bare CR") }
        let line = bytes[at..<end]
        at = end + 2
        return line
    }

    /// The next request; nil if only empty lines are left.
    private mutating func request() throws(Stop) -> Request? {
        // A server should ignore an empty line or more in front of a request (RFC 9112, 2.2).
        while at + 1 < bytes.count, bytes[at] == 13, bytes[at + 1] == 10 { at += 2 }
        if at == bytes.count { return nil }
        let parts = try line().split(separator: 32, omittingEmptySubsequences: false)
        guard parts.count == 3 else {
            throw parts.count > 3 ? .doubtful("spaces in the request line") : .refused("a request line of \(parts.count) parts")
        }
        guard !parts[0].isEmpty, parts[0].allSatisfy(Self.isTokenByte) else { throw .refused("a method that is no token") }
        guard !parts[1].isEmpty, parts[1].allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { throw .doubtful("odd bytes in the target") }
        let version = Array(parts[2]).latin1
        let method = Array(parts[0]).latin1
        guard version == "HTTP/1.1" || version == "HTTP/1.0" else {
            throw version.hasPrefix("HTTP/1.") ? .doubtful("version \(version.shown())") : .refused("version \(version.shown())")
        }
        if method == "CONNECT" || method == "PRI" { throw .doubtful("method \(method)") }

        var hosts: [String] = []
        var lengths: [String] = []
        var codings: [String] = []
        var options: [String] = []
        while true {
            let line = try line()
            if line.isEmpty { break }
            let (name, value) = try Self.field(line)
            switch name {
            case "host": hosts.append(value)
            case "content-length": lengths.append(value)
            case "transfer-encoding": codings.append(value)
            case "connection": options += Self.list(value).map { $0.lowercased() }
            default: break
            }
        }
        try body(lengths, codings, version, method)
        var request = Request(method: method, isLast: options.contains("close"))
        // An HTTP/1.0 connection may be kept when the client asks for it; whether the server does is its own choice.
        if version == "HTTP/1.0" {
            if options.contains("keep-alive"), !request.isLast { throw .doubtful("HTTP/1.0 with keep-alive") }
            request.isLast = true
        }
        if hosts.count > 1 || (hosts.isEmpty && version == "HTTP/1.1") { request.fault = "\(hosts.count) Host fields" }
        if let host = hosts.first, request.fault == nil { request.fault = Self.hostFault(host) }
        return request
    }

    private static func field(_ line: ArraySlice<UInt8>) throws(Stop) -> (name: String, value: String) {
        if line.first == 32 || line.first == 9 { throw .doubtful("a folded line") }
        guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else { throw .doubtful("a line without a colon") }
        let name = line[..<colon]
        if name.last == 32 || name.last == 9 { throw .refused("a space in front of a colon") }
        // nginx drops such a line, others refuse it.
        guard !name.isEmpty, name.allSatisfy(isTokenByte) else { throw .doubtful("a field name that is no token") }
        var value = line[line.index(after: colon)...]
        guard value.allSatisfy({ $0 == 9 || ($0 >= 0x20 && $0 != 0x7F) }) else { throw .doubtful("a control byte in a value") }
        while let first = value.first, first == 32 || first == 9 { value.removeFirst() }
        while let last = value.last, last == 32 || last == 9 { value.removeLast() }
        // nginx takes names with an underscore for malformed and leaves them out. Only one that resembles a field of the body's length could matter.
        return (Array(name).latin1.lowercased(), Array(value).latin1)
    }

    private static func list(_ value: String) -> [String] {
        value.split(separator: ",").map { $0.trimmingPrefix { $0 == " " || $0 == "\t" } }
            .map { String($0.reversed().drop { $0 == " " || $0 == "\t" }.reversed()) }
    }

    /// Why this is certainly no `uri-host [ ":" port ]` (RFC 9110, 7.2; RFC 3986, 3.2.2); nil where there is any doubt.
    private static func hostFault(_ host: String) -> String? {
        let allowed = host.utf8.allSatisfy { byte in
            (isTokenByte(byte) && !"#^`|".utf8.contains(byte)) || ",;=()~:[]".utf8.contains(byte)
        }
        guard allowed else { return "Host \(host.shown())" }
        let parts = host.split(separator: ":", omittingEmptySubsequences: false)
        if host.contains("[") || host.contains("]") || parts.count == 1 { return nil }
        guard parts.count == 2, parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return "Host \(host.shown())" }
        return nil
    }

    // MARK: Bodies

    private mutating func body(_ lengths: [String], _ codings: [String], _ version: String, _ method: String) throws(Stop) {
        if !codings.isEmpty {
            if !lengths.isEmpty { throw .refused("Content-Length and Transfer-Encoding") }
            if version == "HTTP/1.0" { throw .doubtful("Transfer-Encoding in HTTP/1.0") }
            guard codings.count == 1, codings[0].lowercased() == "chunked" else {
                let members = codings.flatMap(Self.list).map { $0.lowercased() }
                // The body's end is known where chunked comes last, and once; what the coding in front of it is, the server should know (RFC 9112, 6.1).
                throw members.last == "chunked" && members.filter({ $0 == "chunked" }).count == 1
                    ? .doubtful("another coding than chunked") : .refused("Transfer-Encoding \(codings.joined(separator: ", ").shown())")
            }
            bodyOf = method
            return try chunks()
        }
        guard let length = lengths.first else { return }
        if lengths.count > 1 {
            throw Set(lengths).count == 1 ? .doubtful("Content-Length twice, equal") : .refused("Content-Length twice")
        }
        guard !length.isEmpty, length.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            let members = Set(Self.list(length))
            throw members.count == 1 && members.first != length
                ? .doubtful("Content-Length as a list") : .refused("Content-Length \(length.shown())")
        }
        // A length beyond all bounds is refused as too large.
        guard length.utf8.count <= 15, let count = Int(length) else { throw .refused("Content-Length \(length)") }
        guard count <= 64 * 1024 else { throw .doubtful("a body that is too large") }
        bodyOf = method
        guard bytes.count - at >= count else { throw .incomplete }
        at += count
    }

    private mutating func chunks() throws(Stop) {
        while true {
            let line = try line()
            let digits = line.prefix { Character(Unicode.Scalar($0)).isHexDigit }
            guard !digits.isEmpty else { throw .refused("a chunk's size \(Array(line).latin1.shown())") }
            if digits.count < line.count {
                guard line[digits.endIndex] == UInt8(ascii: ";") else {
                    // White space in front of an extension is bad, but allowed.
                    throw line[digits.endIndex] == 32 || line[digits.endIndex] == 9
                        ? .doubtful("space behind a chunk's size") : .refused("a chunk's size \(Array(line).latin1.shown())")
                }
                guard line.allSatisfy({ $0 == 9 || ($0 >= 0x20 && $0 < 0x7F) }) else { throw .doubtful("odd bytes in a chunk's extension") }
                throw .doubtful("a chunk's extension")
            }
            guard digits.count <= 8, let count = Int(Array(digits).latin1, radix: 16) else {
                throw .refused("a chunk's size of \(digits.count) digits")
            }
            if count == 0 { break }
            guard bytes.count - at >= count + 2 else {
                if bytes.count - at > count, bytes[at + count] != 13 { throw .refused("a chunk that is longer than it says") }
                throw .incomplete
            }
            at += count
            guard bytes[at] == 13, bytes[at + 1] == 10 else { throw .refused("a chunk that is longer than it says") }
            at += 2
        }
        while true {
            let line = try line()
            if line.isEmpty { return }
            _ = try Self.field(line)
            throw .doubtful("trailer fields")
        }
    }
}
