// Rows about fields: their meaning, the connection, odd bytes and sizes.

extension FramingCases {
    // MARK: Fields

    mutating func fields() {
        bent(110, "Transfer_Encoding + CL", .either) { a in a.adding("Transfer_Encoding: chunked") }
        bent(125, "field without colon", .refused, gateway: .answeredOrRefused) { a in a.adding("no colon here") }
        bent(126, "empty field name", .refused, gateway: .answeredOrRefused) { a in a.adding(": empty") }
        bent(127, "8-bit field name", .refused, gateway: .answeredOrRefused) { a in a.adding("X-N\u{F6}te: a") }
        bent(128, "odd tchar name X!#$: 1", .answered) { a in a.adding("X!#$: 1") }
        // The route has this rule, whichever reader stands in front of it.
        bent(135, "Content-Type twice", .refusedAny.or(.answered)) { a in a.adding("Content-Type: text/plain") }
        bent(136, "Content-Type of another kind", .refusedAny) { a in a.with("Content-Type", "Content-Type: text/plain") }
        bent(137, "Idempotency-Key twice", .either, [.keyIsUnclear]) { a in a.adding("Idempotency-Key: \(a.value("Idempotency-Key"))x") }
        bent(219, "Keep-Alive field", .answered) { a in a.adding("Keep-Alive: timeout=5, max=1000") }
        bent(220, "X-HTTP-Method-Override", .answered) { a in a.adding("X-HTTP-Method-Override: DELETE") }
        // A request that names a proxy may be refused what only this machine may ask for.
        bent(221, "X-Forwarded-For", .either, [.guarded]) { a in a.adding("X-Forwarded-For: 10.0.0.1") }
        bent(222, "X-Request-Id of 300 letters", .answered, [.idIsUnclear]) { a in
            a.with("X-Request-Id", "X-Request-Id: " + String(repeating: "a", count: 300))
        }
        bent(275, "X-Request-Id twice", .either, [.idIsUnclear]) { a in a.adding("X-Request-Id: \(a.id)-2") }
        bent(276, "X-Request-Id with a line of the log in it", .answered, [.idIsUnclear]) { a in
            a.with("X-Request-Id", "X-Request-Id: a level=error\tb")
        }
        bent(223, "a name of 300 letters", .answered, gateway: .either) { a in a.adding("X-" + String(repeating: "a", count: 300) + ": 1") }
        bent(224, "Content-Encoding: gzip", .either) { a in a.adding("Content-Encoding: gzip") }
        bent(225, "Forwarded", .either, [.guarded]) { a in a.adding("Forwarded: for=10.0.0.1;host=elsewhere.example") }
    }

    // MARK: Connection handling

    mutating func connections() {
        /// A row with this `Connection`, or several.
        func option(_ number: Int, _ name: String, _ allowed: Allowed, gateway: Allowed? = nil, _ lines: [String]) {
            bent(number, name, allowed, gateway: gateway) { a in
                var a = a
                a.lines += lines
                return a
            }
        }
        option(119, "Connection: close then S", .closing, ["Connection: close"])
        option(120, "Connection: Close then S", .closing, ["Connection: Close"])
        option(121, "Connection: keep-alive, close", .closing, ["Connection: keep-alive, close"])
        option(122, "Connection: Content-Length", .either, ["Connection: Content-Length"])
        bent(123, "Connection: Transfer-Encoding + TE", .either) { a in a.chunked().adding("Connection: Transfer-Encoding") }
        option(124, "Connection: Host, Idempotency-Key", .either, ["Connection: Host, Idempotency-Key"])
        option(226, "Connection: CLOSE", .closing, ["Connection: CLOSE"])
        option(227, "Connection: close, keep-alive", .closing, ["Connection: close, keep-alive"])
        option(228, "Connection: foo, close ,bar", .closing, gateway: .closing.or(.refused), ["Connection: foo, close ,bar"])
        option(229, "Connection: keep-alive,close", .closing, ["Connection: keep-alive,close"])
        option(230, "Connection twice: keep-alive, then close", .closing, ["Connection: keep-alive", "Connection: close"])
        option(231, "Connection: keep-alive", .answered, ["Connection: keep-alive"])
        option(232, "Connection: Keep-Alive in capitals", .answered, ["CONNECTION: KEEP-ALIVE"])
        option(233, "Proxy-Connection: close", .answeredAny, ["Proxy-Connection: close"])
        option(234, "Proxy-Connection: keep-alive", .answered, ["Proxy-Connection: keep-alive"])
        option(
            235,
            "Proxy-Connection: close + Connection: keep-alive",
            .answeredAny,
            ["Proxy-Connection: close", "Connection: keep-alive"]
        )
        option(236, "Connection: close\\t", .closing, ["Connection: \tclose\t"])
        option(237, "Connection empty", .answeredAny, ["Connection:"])
        // The gateway refuses a field of the connection that it cannot take out by name.
        option(238, "Connection: closed", .answeredAny, gateway: .answeredAny.or(.refused), ["Connection: closed"])
        bent(239, "Proxy-Connection: keep-alive in HTTP/1.0", .closing) { a in
            a.adding("Proxy-Connection: keep-alive").versioned("HTTP/1.0")
        }
    }

    // MARK: Odd bytes

    mutating func oddBytes() {
        bent(251, "8-bit bytes in a value", .answered) { a in a.adding("X-Note: caf\u{E9}") }
        bent(252, "UTF-8 in User-Agent", .answered) { a in a.adding("User-Agent: \u{EA}\u{B9}\u{80}") }
        bent(253, "DEL in value", .answeredOrRefused) { a in a.adding("X-Note: a\u{7F}b") }
        bent(254, "every byte from 0x80 in a value", .answered) { a in
            a.adding("X-Note: " + String(String.UnicodeScalarView((0x80...0xFF).compactMap { Unicode.Scalar($0) })))
        }
        bent(255, "ESC in value", .answeredOrRefused) { a in a.adding("X-Note: \u{1B}[31m") }
        bent(256, "8-bit X-Request-Id", .answered, [.idIsUnclear]) { a in a.with("X-Request-Id", "X-Request-Id: caf\u{E9}") }
        bent(257, "8-bit Idempotency-Key", .refusedAny) { a in a.with("Idempotency-Key", "Idempotency-Key: DEC-\u{E9}") }
        bent(258, "tab in a value", .answered) { a in a.adding("X-Note: a\tb") }
    }

    // MARK: Sizes

    mutating func sizes() {
        bent(129, "150 fields", .either) { a in a.padded(fields: 150) }
        bent(130, "1,000 fields", .refusedAny) { a in a.padded(fields: 1_000) }
        bent(131, "head 20 KB field", .refusedAny) { a in a.adding("X-Large: " + String(repeating: "x", count: 20_000)) }
        bent(259, "90 fields", .answered) { a in a.padded(fields: 90) }
        bent(260, "a field of 7 KB", .answered) { a in a.adding("X-Large: " + String(repeating: "x", count: 7_000)) }
        bent(261, "a field of 9 KB", .either) { a in a.adding("X-Large: " + String(repeating: "x", count: 9_000)) }
        bent(262, "a head of 300 KB", .refused) { a in
            var a = a
            for number in 1...40 { a = a.adding("X-Large-\(number): " + String(repeating: "x", count: 7_500)) }
            return a
        }
    }
}

extension Draft {
    /// With as many fields in all.
    fileprivate func padded(fields count: Int) -> Draft {
        var draft = self
        while draft.lines.count < count { draft.lines.append("X-Field-\(draft.lines.count): \(draft.lines.count)") }
        return draft
    }
}
