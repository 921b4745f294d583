// Rows about the request line and what a request asks for: target, host, version, upgrades.

extension FramingCases {
    // MARK: Targets

    mutating func targets() {
        /// A row with another target. The admin port's guard may refuse it by a rule of its own.
        func target(
            _ number: Int,
            _ name: String,
            _ allowed: Allowed,
            gateway: Allowed? = nil,
            _ traits: FramingCase.Traits = [],
            _ make: @escaping @Sendable (String, Draft) -> String
        ) {
            bent(number, name, allowed, gateway: gateway, traits) { a in
                var a = a
                a.target = make(a.target, a)
                return a
            }
        }
        target(84, "absolute-form target", .answered) { path, a in "http://\(a.value("Host"))\(path)" }
        target(85, "absolute-form, another host than Host", .either, [.guarded]) { path, _ in "http://elsewhere.example\(path)" }
        target(86, "absolute-form https", .either) { path, a in "https://\(a.value("Host"))\(path)" }
        bent(87, "authority-form CONNECT h:80", .refusedAny, [.changesNothing]) { a in
            var a = a.without("Content-Length").without("Content-Type")
            a.method = "CONNECT"
            a.target = "h:80"
            a.body = ""
            return a
        }
        target(88, "authority-form without CONNECT", .refusedAny) { _, _ in "h:80" }
        bent(89, "OPTIONS *", .either, [.changesNothing]) { a in
            var a = a.without("Content-Length")
            a.method = "OPTIONS"
            a.target = "*"
            a.body = ""
            return a
        }
        bent(90, "TRACE", .refusedAny, [.changesNothing]) { a in
            var a = a.without("Content-Length").without("Content-Type")
            a.method = "TRACE"
            a.body = ""
            return a
        }
        target(132, "fragment in target", .refusedAny) { path, _ in path + "#part" }
        target(133, "space in target", .refused) { path, _ in path + "?a= b" }
        target(134, "8-bit target", .refusedAny) { path, _ in path + "/\u{C3}\u{A9}" }
        target(171, "NUL in target", .refused, gateway: .refusedAny) { path, _ in path + "\u{0}" }
        target(172, "DEL in target", .refusedAny) { path, _ in path + "/\u{7F}" }
        target(173, "%00 in target", .refusedAny) { path, _ in path + "/%00" }
        target(174, "%0d%0a in target", .refusedAny) { path, _ in path + "/a%0d%0aX-Split:%20yes" }
        target(175, "%zz in target", .refusedAny) { path, _ in path + "/%zz" }
        target(176, "bad UTF-8 %ff in target", .refusedAny) { path, _ in path + "/%ff" }
        target(177, "query with 8-bit bytes", .refusedAny) { path, _ in path + "?a=\u{C3}\u{A9}" }
        target(178, "query with %0a", .either) { path, _ in path + "?a=%0a" }
        target(179, "target empty", .refused) { _, _ in "" }
        target(180, "target without a slash", .refusedAny) { path, _ in String(path.dropFirst()) }
        target(181, "target //host/path", .refusedAny) { path, _ in "//elsewhere.example" + path }
        target(182, "target with a backslash", .refusedAny) { path, _ in
            let slash = path.lastIndex(of: "/") ?? path.startIndex
            return path[..<slash] + "\\" + path[slash...].dropFirst()
        }
        target(183, "target of 7,000 bytes", .refusedAny) { path, _ in path + "/" + String(repeating: "a", count: 7_000) }
        target(184, "target of 40,000 bytes", .refused) { path, _ in path + "/" + String(repeating: "a", count: 40_000) }
        target(185, "target with userinfo", .either, [.guarded]) { path, a in "http://user@\(a.value("Host"))\(path)" }
        target(186, "ftp: target", .refusedAny.or(.answered), [.guarded]) { path, a in "ftp://\(a.value("Host"))\(path)" }
    }

    // MARK: Host

    mutating func hosts() {
        bent(91, "Host missing", .refusedAny, [.guarded]) { a in a.without("Host") }
        bent(92, "Host twice", .refusedAny, [.guarded]) { a in a.adding("Host: elsewhere.example") }
        bent(93, "Host empty", .either, [.guarded]) { a in a.with("Host", "Host:") }
        bent(94, "Host malformed \"a b\"", .refusedAny, [.guarded]) { a in a.with("Host", "Host: a b") }
        bent(187, "Host twice equal", .refusedAny, [.guarded]) { a in a.adding("Host: \(a.value("Host"))") }
        bent(188, "Host with a path", .refusedAny, [.guarded]) { a in a.with("Host", "Host: a/b") }
        bent(189, "Host with userinfo", .refusedAny, [.guarded]) { a in a.with("Host", "Host: user@127.0.0.1") }
        bent(190, "Host with an open bracket", .refusedAny, [.guarded]) { a in a.with("Host", "Host: [::1") }
        bent(191, "Host with two ports", .refusedAny, [.guarded]) { a in a.with("Host", "Host: a:80:80") }
        bent(192, "Host with a port that is no number", .refusedAny, [.guarded]) { a in a.with("Host", "Host: a:http") }
        bent(193, "Host as a list", .refusedAny, [.guarded]) { a in a.with("Host", "Host: a, b") }
        bent(194, "another Host", .answered, [.guarded]) { a in a.with("Host", "Host: shop.example") }
        bent(195, "Host [::1]", .answered, gateway: .either, [.guarded]) { a in a.with("Host", "Host: [::1]:8081") }
        bent(196, "Host in capitals", .answered, [.guarded]) { a in a.with("Host", "HOST: LOCALHOST") }
        bent(197, "absolute-form without Host", .refusedAny, [.guarded]) { a in
            var bare = a.without("Host")
            bare.target = "http://\(a.value("Host"))\(a.target)"
            return bare
        }
        bent(198, "Host with an 8-bit byte", .refusedAny, [.guarded]) { a in a.with("Host", "Host: caf\u{C3}\u{A9}.example") }
    }

    // MARK: Versions and request lines

    mutating func versions() {
        add(95, "HTTP/0.9", .foreign, gateway: .foreign.or(.plain), [.changesNothing], answers: 1) { a, s in
            [.send("GET \(a.target)\r\n" + s.text)]
        }
        bent(96, "HTTP/1.0 CL", .closing) { a in a.versioned("HTTP/1.0") }
        bent(97, "HTTP/1.0 TE chunked", .closing.or(.refused)) { a in a.chunked().versioned("HTTP/1.0") }
        bent(98, "HTTP/1.0 TE + CL + keep-alive", .refused) { a in
            let chunked = a.chunked()
            return chunked.adding("Content-Length: \(chunked.size)", "Connection: keep-alive").versioned("HTTP/1.0")
        }
        bent(99, "HTTP/1.2", .answeredOrRefused) { a in a.versioned("HTTP/1.2") }
        bent(100, "HTTP/2.0", .refused) { a in a.versioned("HTTP/2.0") }
        bent(101, "http/1.1 lower", .refused) { a in a.versioned("http/1.1") }
        bent(102, "HTTP/1.1 trailing space", .answeredOrRefused) { a in a.versioned("HTTP/1.1 ") }
        bent(103, "HTTP/1.1 trailing word", .refused) { a in a.versioned("HTTP/1.1 x") }
        add(111, "leading CRLFs", .answered) { a, s in [.send("\r\n\r\n" + a.text + s.text)] }
        add(112, "leading space", .refused) { a, s in [.send(" " + a.text + s.text)] }
        bent(113, "two spaces in request line", .answeredOrRefused) { a in
            var a = a
            a.target = " " + a.target
            return a
        }
        add(114, "tab in request line", .answeredOrRefused) { a, s in
            let line = "\(a.method)\t\(a.target)\t\(a.version)"
            return [.send(line + String(a.text.unicodeScalars.dropFirst(line.byteCount)) + s.text)]
        }
        bent(115, "method in lower case", .refusedAny) { a in a.methodical(a.method.lowercased()) }
        bent(116, "method FOO", .refusedAny) { a in a.methodical("FOO") }
        bent(199, "HTTP/1.10", .refused, gateway: .answeredOrRefused) { a in a.versioned("HTTP/1.10") }
        bent(200, "HTTP/01.1", .refused) { a in a.versioned("HTTP/01.1") }
        bent(201, "HTTP/1", .refused) { a in a.versioned("HTTP/1") }
        bent(202, "HTTP/1.0 keep-alive", .answeredAny) { a in a.adding("Connection: keep-alive").versioned("HTTP/1.0") }
        // The admin port asks for a Host of this machine, whatever the version.
        bent(203, "HTTP/1.0 without Host", .closing.or(.refused), [.guarded]) { a in a.without("Host").versioned("HTTP/1.0") }
        bent(204, "method of 300 letters", .refusedAny) { a in a.methodical(String(repeating: "A", count: 300)) }
        bent(205, "method with a NUL", .refused) { a in a.methodical("GE\u{0}T") }
        bent(206, "method with an 8-bit byte", .refused) { a in a.methodical("GE\u{E9}T") }
        add(207, "a thousand empty lines", .either) { a, s in [.send(String(repeating: "\r\n", count: 1_000) + a.text + s.text)] }
        add(208, "HTTP/2 preface", .foreign, [.changesNothing], answers: 1) { _, s in
            [.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u{0}\u{0}\u{0}\u{4}\u{0}\u{0}\u{0}\u{0}\u{0}" + s.text)]
        }
        add(209, "TLS hello", .foreign, [.changesNothing], answers: 1) { _, s in
            [.send("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{FC}\u{3}\u{3}" + String(repeating: "\u{AA}", count: 505) + s.text)]
        }
        add(210, "an SSH hello", .foreign, [.changesNothing], answers: 1) { _, s in [.send("SSH-2.0-OpenSSH_9.2\r\n" + s.text)] }
        add(211, "binary zeros", .foreign, [.changesNothing], answers: 1) { _, s in
            [.send(String(repeating: "\u{0}", count: 64) + "\r\n\r\n" + s.text)]
        }
    }

    // MARK: Upgrade and Expect

    mutating func asking() {
        bent(104, "Upgrade: h2c", .answeredAny) { a in
            a.adding("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
        }
        bent(105, "Upgrade: websocket", .answeredAny) { a in
            a.adding(
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version: 13"
            )
        }
        bent(106, "Upgrade: TLS/1.2", .answeredAny) { a in a.adding("Connection: Upgrade", "Upgrade: TLS/1.2") }
        bent(107, "Expect 100-continue, body at once", .answered, [.mayContinue]) { a in a.adding("Expect: 100-continue") }
        bent(108, "Expect nonsense", .either) { a in a.adding("Expect: nonsense") }
        bent(109, "Expect: 100-Continue, in capitals", .answered, [.mayContinue]) { a in a.adding("EXPECT: 100-Continue") }
        bent(212, "Upgrade without Connection", .answeredAny) { a in a.adding("Upgrade: h2c") }
        bent(213, "Connection: Upgrade without Upgrade", .answeredAny) { a in a.adding("Connection: Upgrade") }
        add(214, "Expect 100-continue, body on 100", .answered, [.wantsContinue]) { a, s in
            Self.expecting(a.adding("Expect: 100-continue"), s)
        }
        add(215, "Expect 100-continue, chunked body on 100", .answered, [.wantsContinue]) { a, s in
            Self.expecting(a.chunked().adding("Expect: 100-continue"), s)
        }
        // A client of HTTP/1.0 does not know what an interim answer is (RFC 9110, 10.1.1).
        bent(216, "Expect 100-continue in HTTP/1.0", .closing) { a in a.adding("Expect: 100-continue").versioned("HTTP/1.0") }
        add(217, "Expect 100-continue, body too large, never sent", .refused, [.wantsContinue], answers: 1) { a, _ in
            var a = a.length("10000000").adding("Expect: 100-continue")
            a.body = ""
            return [.send(a.text), .awaitInterim]
        }
        bent(218, "TE: trailers", .answered) { a in a.adding("TE: trailers", "Connection: TE") }
    }

    private static func expecting(_ a: Draft, _ s: Draft) -> [Step] {
        var head = a
        head.body = ""
        return [.send(head.text), .awaitInterim, .send(a.body + s.text)]
    }
}

extension Draft {
    func versioned(_ version: String) -> Draft {
        var draft = self
        draft.version = version
        return draft
    }

    fileprivate func methodical(_ method: String) -> Draft {
        var draft = self
        draft.method = method
        return draft
    }
}
