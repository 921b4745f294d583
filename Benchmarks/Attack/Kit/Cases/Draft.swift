/// A request in parts, so that a case can bend one of them. Every text is bytes: character n is byte n.
struct Draft: Sendable {
    var method: String
    var target: String
    var version = "HTTP/1.1"
    /// Header lines without their ends.
    var lines: [String]
    var body: String
    /// The request's `X-Request-Id`, by which its answer is known.
    let id: String
    /// The word by which the stores count this request: a key of the ledger or a buyer of an order; nil for a request that changes nothing.
    let effect: String?
    /// Whether nothing is sent in this request's place: the request in front of it is then the last one.
    var isAbsent = false

    /// The request's text as it would be sent.
    var text: String {
        if isAbsent { return "" }
        return
            "\(method) \(target) \(version)\r\n" + lines.map { $0 + "\r\n" }.joined() + "\r\n" + body
    }

    /// Bytes of its body.
    var size: Int { body.byteCount }

    /// The value of the first line of this name.
    func value(_ name: String) -> String {
        let prefix = name.lowercased() + ":"
        guard let line = lines.first(where: { $0.lowercased().hasPrefix(prefix) }) else { return "" }
        return String(line.dropFirst(prefix.count).drop { $0 == " " })
    }

    /// A copy with these lines in the place of those of this name; at the end if there are none.
    func with(_ name: String, _ replacement: String...) -> Draft {
        var draft = self
        let prefix = name.lowercased() + ":"
        let index = lines.firstIndex { $0.lowercased().hasPrefix(prefix) }
        draft.lines.removeAll { $0.lowercased().hasPrefix(prefix) }
        // Nothing in front of the first line of that name was removed.
        draft.lines.insert(contentsOf: replacement, at: index ?? draft.lines.endIndex)
        return draft
    }

    /// A copy without the lines of this name.
    func without(_ name: String) -> Draft {
        var draft = self
        let prefix = name.lowercased() + ":"
        draft.lines.removeAll { $0.lowercased().hasPrefix(prefix) }
        return draft
    }

    /// A copy with these lines at the end.
    func adding(_ more: String...) -> Draft {
        var draft = self
        draft.lines += more
        return draft
    }

    /// A copy with other `Content-Length` lines; each value is what stands behind the colon and a space.
    func length(_ values: String...) -> Draft {
        var draft = without("Content-Length")
        draft.lines += values.map { "Content-Length: \($0)" }
        return draft
    }

    /// A copy with these lines in place of a length, and with a body whose end `Content-Length` does not give.
    func coded(_ coding: String..., body: String? = nil) -> Draft {
        var draft = without("Content-Length")
        draft.lines += coding
        draft.body = body ?? (chunk(draft.body) + lastChunk)
        return draft
    }

    /// A copy with `Transfer-Encoding: chunked`, in one chunk unless a body is given.
    func chunked(body: String? = nil) -> Draft {
        var draft = without("Content-Length")
        draft.lines.append("Transfer-Encoding: chunked")
        draft.body = body ?? (chunk(draft.body) + lastChunk)
        return draft
    }
}

/// A chunk with its size line, which may have something behind its digits.
func chunk(_ body: String, _ behindSize: String = "") -> String {
    "\(String(body.byteCount, radix: 16))\(behindSize)\r\n\(body)\r\n"
}

let lastChunk = "0\r\n\r\n"
