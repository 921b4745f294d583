import NIOCore

/// What an order's answer says, read without a decoder: the buyers' thousands of answers a second share two cores with the servers.
struct OrderAnswer: Equatable {
    var id: Int64?
    var status: String?
    var failReason: String?
    var error: String?
    /// The order that was made although the answer is an error.
    var detailsOrderID: Int64?

    /// Reads the fields of a JSON object, in any order, others skipped. Nil if the bytes are no JSON object.
    init?(json bytes: some Collection<UInt8>) {
        var scanner = JSONScanner(bytes: Array(bytes))
        let isObject = scanner.object { key, scanner in
            switch key {
            case "id": self.id = scanner.integer()
            case "status": self.status = scanner.string()
            case "failReason": self.failReason = scanner.string()
            case "error": self.error = scanner.string()
            case "details":
                // An object, or anything else, which is skipped.
                _ = scanner.object { name, scanner in
                    if name == "orderId" { self.detailsOrderID = scanner.integer() }
                }
            default: break
            }
        }
        guard isObject else { return nil }
    }
}

/// Walks over one JSON object. Only what an answer of the contract needs: depth at most 32.
private struct JSONScanner {
    let bytes: [UInt8]
    var index = 0

    init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    private var next: UInt8? { index < bytes.count ? bytes[index] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { index += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        skipSpace()
        guard next == byte else { return false }
        index += 1
        return true
    }

    /// Calls `field` with each key; the value is skipped if `field` did not read it.
    mutating func object(_ field: (String, inout JSONScanner) -> Void) -> Bool {
        guard take(UInt8(ascii: "{")) else { return false }
        if take(UInt8(ascii: "}")) { return true }
        repeat {
            skipSpace()
            guard let key = string(), take(UInt8(ascii: ":")) else { return false }
            skipSpace()
            let before = index
            field(key, &self)
            if index == before, !skipValue(depth: 0) { return false }
        } while take(UInt8(ascii: ","))
        return take(UInt8(ascii: "}"))
    }

    /// A string, or nil and unmoved.
    mutating func string() -> String? {
        guard next == UInt8(ascii: "\"") else { return nil }
        var end = index + 1
        var escaped = false
        while end < bytes.count, bytes[end] != UInt8(ascii: "\"") {
            if bytes[end] == UInt8(ascii: "\\") {
                escaped = true
                end += 1
            }
            end += 1
        }
        guard end < bytes.count else { return nil }
        let text = String(decoding: bytes[(index + 1)..<end], as: UTF8.self)
        index = end + 1
        // The fields read here are codes; an escape in one makes it a code nobody knows, which is what it is.
        return escaped ? "\\" + text : text
    }

    /// A whole number, or nil and unmoved.
    mutating func integer() -> Int64? {
        var end = index
        while end < bytes.count, (0x30...0x39).contains(bytes[end]) || bytes[end] == UInt8(ascii: "-") { end += 1 }
        guard end > index, let value = Int64(String(decoding: bytes[index..<end], as: UTF8.self)) else { return nil }
        if end < bytes.count, bytes[end] == UInt8(ascii: ".") || bytes[end] | 0x20 == UInt8(ascii: "e") { return nil }
        index = end
        return value
    }

    private mutating func skipValue(depth: Int) -> Bool {
        guard depth < 32 else { return false }
        skipSpace()
        switch next {
        case UInt8(ascii: "\""):
            return string() != nil
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            let isObject = next == UInt8(ascii: "{")
            let close = isObject ? UInt8(ascii: "}") : UInt8(ascii: "]")
            index += 1
            if take(close) { return true }
            repeat {
                skipSpace()
                if isObject { guard string() != nil, take(UInt8(ascii: ":")) else { return false } }
                guard skipValue(depth: depth + 1) else { return false }
            } while take(UInt8(ascii: ","))
            return take(close)
        default:
            let before = index
            while let byte = next, byte != UInt8(ascii: ","), byte != UInt8(ascii: "}"), byte != UInt8(ascii: "]"), byte > 0x20 {
                index += 1
            }
            return index > before
        }
    }
}

/// What one attempt came to.
enum AttemptOutcome: Equatable {
    /// The order exists and is paid for in stock.
    case confirmed(orderID: Int64)
    /// The order exists, and is decided later.
    case accepted(orderID: Int64)
    /// No units were left, and no order was made.
    case soldOut
    /// No units were left; a FAILED order was made of it.
    case soldOutOrder(orderID: Int64)
    /// A clear no of another kind: the error code.
    case failed(String)
    /// Nobody knows yet: the same key is sent again. The text is the cause, a word to count by.
    case unknown(String)

    /// Judges an answer by the contract. What cannot be understood is unknown, never a success and never a no.
    init(status: Int, body: some Collection<UInt8>) {
        let answer = OrderAnswer(json: body)
        switch status {
        case 200:
            switch answer?.status {
            case "CONFIRMED":
                if let id = answer?.id { self = .confirmed(orderID: id) } else { self = .unknown("MALFORMED_ANSWER") }
            case "FAILED":
                // For want of stock, too: by the contract that is a 400.
                self = .failed(answer?.failReason ?? "FAILED")
            case "CANCELLED": self = .failed("CANCELLED")
            case "PENDING": self = .unknown("PENDING")
            default: self = .unknown("MALFORMED_ANSWER")
            }
        case 202: self = .unknown("PENDING")
        case 400 where answer?.error == "INSUFFICIENT_STOCK":
            self = answer?.detailsOrderID.map { .soldOutOrder(orderID: $0) } ?? .soldOut
        case 409 where answer?.error == "REQUEST_IN_PROGRESS": self = .unknown("REQUEST_IN_PROGRESS")
        case 408, 424, 429: self = .unknown(answer?.error ?? "HTTP_\(status)")
        // A server without a broker refuses every such order, so it is not asked again.
        case 501 where answer?.error == "NOT_IMPLEMENTED": self = .failed("NOT_IMPLEMENTED")
        case 400..<500: self = .failed(answer?.error ?? "HTTP_\(status)")
        default: self = .unknown(answer?.error ?? "HTTP_\(status)")
        }
    }

    /// Judges the answer to an order that is decided later: an id is a promise to decide it, whatever its state by now.
    init(acceptance status: Int, body: some Collection<UInt8>) {
        guard status == 200 || status == 202 else {
            self.init(status: status, body: body)
            return
        }
        if let id = OrderAnswer(json: body)?.id { self = .accepted(orderID: id) } else { self = .unknown("MALFORMED_ANSWER") }
    }

    init(_ failure: HTTPFailure) {
        switch failure {
        case .connect: self = .unknown("CANNOT_CONNECT")
        case .timedOut: self = .unknown("TIMED_OUT")
        case .closed: self = .unknown("CONNECTION_LOST")
        case .malformed, .tooLarge: self = .unknown("MALFORMED_ANSWER")
        }
    }
}
