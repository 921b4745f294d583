// The rows of the framing table. A is a request that changes something, S one that follows it in the same packet: whoever reads A's end in another place than
// the server does carries S out twice, never, or as part of A. Numbers are for ever: a row that goes leaves its number unused.

/// A list of rows under construction.
struct FramingCases {
    private(set) var rows: [FramingCase] = []

    /// Every row, in the order of their numbers.
    static let all: [FramingCase] = {
        var cases = FramingCases()
        cases.lengths()
        cases.lines()
        cases.codings()
        cases.chunks()
        cases.targets()
        cases.hosts()
        cases.versions()
        cases.asking()
        cases.fields()
        cases.connections()
        cases.bodies()
        cases.oddBytes()
        cases.sizes()
        cases.tails()
        return cases.rows.sorted { $0.number < $1.number }
    }()

    /// Adds a row. Through the gateway the same is allowed as directly unless it is said otherwise; where the RFC leaves a choice the gateway may pass on, in a form
    /// without doubt, what the server behind it then refuses.
    private mutating func add(
        _ number: Int,
        _ name: String,
        _ servers: Allowed,
        gateway: Allowed? = nil,
        _ traits: FramingCase.Traits = [],
        answers: Int = 2,
        method: String? = nil,
        _ steps: @escaping @Sendable (Draft, Draft) -> [Step]
    ) {
        rows.append(
            FramingCase(
                number: number,
                name: name,
                servers: servers,
                gateway: gateway ?? (servers == .answeredOrRefused ? .either : servers),
                traits: traits,
                answers: answers,
                method: method,
                steps: steps
            )
        )
    }

    /// Adds a row that is one packet: A bent, then S.
    private mutating func bent(
        _ number: Int,
        _ name: String,
        _ servers: Allowed,
        gateway: Allowed? = nil,
        _ traits: FramingCase.Traits = [],
        _ bend: @escaping @Sendable (Draft) -> Draft
    ) {
        add(number, name, servers, gateway: gateway, traits) { a, s in [.send(bend(a).text + s.text)] }
    }

    // MARK: Content-Length

    private mutating func lengths() {
        bent(1, "CL + TE chunked", .refused) { a in
            let chunked = a.chunked()
            return chunked.adding("Content-Length: \(chunked.size)")
        }
        add(2, "CL + TE chunked (0 chunk then S)", .refused) { a, s in
            var a = a.coded("Transfer-Encoding: chunked", body: lastChunk)
            a.lines.insert("Content-Length: \(a.size + s.text.byteCount)", at: 1)
            return [.send(a.text + s.text)]
        }
        bent(3, "TE chunked + CL (CL short)", .refused) { a in a.chunked().adding("Content-Length: 4") }
        bent(4, "TE chunked + CL 0", .refused) { a in a.chunked().adding("Content-Length: 0") }
        bent(5, "TE chunked only, S in pipeline", .answered) { a in a.chunked() }
        bent(6, "CL twice equal", .answeredOrRefused) { a in a.length("\(a.size)", "\(a.size)") }
        bent(7, "CL as a list of equals \"n, n\"", .answeredOrRefused) { a in a.length("\(a.size), \(a.size)") }
        add(8, "CL twice different (b, b+s)", .refused) { a, s in
            [.send(a.length("\(a.size)", "\(a.size + s.text.byteCount)").text + s.text)]
        }
        add(9, "CL twice different (b+s, b)", .refused) { a, s in
            [.send(a.length("\(a.size + s.text.byteCount)", "\(a.size)").text + s.text)]
        }
        add(10, "CL as a list \"b, b+s\"", .refused) { a, s in [.send(a.length("\(a.size), \(a.size + s.text.byteCount)").text + s.text)] }
        bent(11, "CL +n", .refused) { a in a.length("+\(a.size)") }
        bent(12, "CL -n", .refused) { a in a.length("-\(a.size)") }
        bent(13, "CL empty", .refused) { a in a.with("Content-Length", "Content-Length:") }
        bent(14, "CL inner space \"2 7\"", .refused) { a in
            let digits = String(a.size)
            return a.length("\(digits.prefix(1)) \(digits.dropFirst())")
        }
        bent(15, "CL hex", .refused) { a in a.length("0x" + String(a.size, radix: 16)) }
        bent(16, "CL 2^64+n", .refused) { a in a.length(Self.beyond64(a.size)) }
        bent(17, "CL 2^63-1", .refused) { a in a.length("9223372036854775807") }
        bent(18, "CL 2^32+n", .refused) { a in a.length("\(4_294_967_296 + a.size)") }
        bent(19, "CL of 100 digits", .refused) { a in a.length(String(repeating: "9", count: 100)) }
        bent(20, "CL leading zeros 12", .answeredOrRefused) { a in a.length(String(repeating: "0", count: 12) + "\(a.size)") }
        bent(21, "CL n\\x0b", .refused) { a in a.length("\(a.size)\u{B}") }
        bent(22, "CL n\\x0c", .refused) { a in a.length("\(a.size)\u{C}") }
        bent(23, "CL n.0", .refused) { a in a.length("\(a.size).0") }
        bent(24, "CL n;x", .refused) { a in a.length("\(a.size);x") }
        bent(25, "CL n, (a list with an empty end)", .answeredOrRefused) { a in a.length("\(a.size),") }
        // White space that RFC 9110 allows and nginx refuses: whoever refuses it as well reads no body that another does not.
        bent(140, "CL with a tab behind it", .answeredOrRefused) { a in a.length("\(a.size)\t") }
        bent(141, "CL with tabs and spaces around it", .answeredOrRefused) { a in
            a.with("Content-Length", "Content-Length: \t \(a.size) \t ")
        }
        bent(142, "CL without a space behind the colon", .answered) { a in a.with("Content-Length", "Content-Length:\(a.size)") }
        bent(143, "CONTENT-LENGTH", .answered) { a in a.with("Content-Length", "CONTENT-LENGTH: \(a.size)") }
        bent(144, "CL in quotes", .refused) { a in a.length("\"\(a.size)\"") }
        bent(145, "CL in fullwidth digits (UTF-8)", .refused) { a in a.length("\u{EF}\u{BC}\u{91}") }
        bent(146, "CL n and CL 0", .refused) { a in a.length("\(a.size)", "0") }
    }

    /// 2^64 and so much more, in decimal digits.
    private static func beyond64(_ more: Int) -> String {
        // 18446744073709551616 ends in 1616, and a body here is shorter than 8,000 bytes.
        "1844674407370955" + String(1616 + more % 8_000)
    }

    // MARK: Lines

    private mutating func lines() {
        bent(26, "obs-fold of another field", .answeredOrRefused) { a in a.adding("X-Note: a\r\n b") }
        bent(27, "obs-fold CL", .answeredOrRefused) { a in a.with("Content-Length", "Content-Length:\r\n \(a.size)") }
        bent(28, "obs-fold TE", .answeredOrRefused) { a in a.coded("Transfer-Encoding:\r\n chunked") }
        bent(29, "obs-fold TE + CL", .refused) { a in
            let coded = a.coded("Transfer-Encoding:\r\n chunked")
            return coded.adding("Content-Length: \(coded.size)")
        }
        add(30, "bare LF all", .answeredOrRefused) { a, s in
            [.send(a.text.replacingCRLF(by: "\n") + s.text)]
        }
        add(31, "bare LF behind the request line", .answeredOrRefused) { a, s in
            [.send(a.text.replacingCRLF(by: "\n", first: 1) + s.text)]
        }
        add(32, "bare LF ends head", .answeredOrRefused) { a, s in
            [.send("\(a.method) \(a.target) \(a.version)\r\n" + a.lines.joined(separator: "\r\n") + "\r\n\n" + a.body + s.text)]
        }
        bent(33, "bare CR in value hides CL", .refusedAll) { a in
            a.without("Content-Length").adding("X-Note: a\rContent-Length: \(a.size)")
        }
        add(34, "bare CR for every line end", .refused) { a, s in [.send(a.text.replacingCRLF(by: "\r") + s.text)] }
        bent(35, "NUL in value", .answeredOrRefused) { a in a.adding("X-Note: a\u{0}b") }
        bent(36, "NUL in CL", .refused) { a in a.length("\(a.size)\u{0}") }
        bent(37, "NUL in a name", .refused) { a in a.adding("X-No\u{0}te: a") }
        bent(38, "space before colon, CL", .refused) { a in a.with("Content-Length", "Content-Length : \(a.size)") }
        bent(39, "space before colon, TE, + CL", .refused) { a in
            let coded = a.coded("Transfer-Encoding : chunked")
            return coded.adding("Content-Length: \(coded.size)")
        }
        bent(40, "tab before colon, TE, + CL", .refused) { a in
            let coded = a.coded("Transfer-Encoding\t: chunked")
            return coded.adding("Content-Length: \(coded.size)")
        }
        add(147, "CR CR LF for every line end", .refused) { a, s in [.send(a.text.replacingCRLF(by: "\r\r\n") + s.text)] }
        add(148, "LF CR for every line end", .refused) { a, s in [.send(a.text.replacingCRLF(by: "\n\r") + s.text)] }
        add(149, "a fold in front of the first field", .refused, gateway: .answeredOrRefused) { a, s in
            var a = a
            a.lines[0] = " " + a.lines[0]
            return [.send(a.text + s.text)]
        }
        bent(150, "a line of a space alone", .answeredOrRefused) { a in a.adding(" ") }
    }

    // MARK: Transfer-Encoding

    private mutating func codings() {
        /// A row with this coding alone, and one with a length beside it, which is refused whatever the coding is.
        func pair(_ alone: Int, _ beside: Int, _ name: String, _ line: String, _ allowed: Allowed, _ gateway: Allowed? = nil) {
            self.bent(alone, "TE \(name)", allowed, gateway: gateway) { a in a.coded(line) }
            self.bent(beside, "TE \(name) + CL", .refused) { a in
                let coded = a.coded(line)
                return coded.adding("Content-Length: \(coded.size)")
            }
        }
        pair(41, 42, "xchunked", "Transfer-Encoding: xchunked", .refused)
        pair(43, 44, "\\x0bchunked", "Transfer-Encoding: \u{B}chunked", .refused)
        pair(45, 46, "identity", "Transfer-Encoding: identity", .refused)
        pair(47, 48, "chunked, identity", "Transfer-Encoding: chunked, identity", .refused)
        pair(49, 50, "identity, chunked", "Transfer-Encoding: identity, chunked", .answeredOrRefused)
        pair(51, 52, "\"chunked\"", "Transfer-Encoding: \"chunked\"", .refused)
        pair(53, 54, "cHuNkEd", "Transfer-Encoding: cHuNkEd", .answered)
        pair(55, 56, "chunked;a=b", "Transfer-Encoding: chunked;a=b", .refused)
        pair(57, 58, "\\tchunked", "Transfer-Encoding:\tchunked", .answered, .answeredOrRefused)
        pair(59, 60, "chunked,", "Transfer-Encoding: chunked,", .answeredOrRefused)
        pair(61, 62, "gzip, chunked", "Transfer-Encoding: gzip, chunked", .refused)
        pair(63, 64, "chunked chunked", "Transfer-Encoding: chunked chunked", .refused)
        bent(65, "TE empty", .refusedAll) { a in a.coded("Transfer-Encoding:") }
        // Without the field's value the length counts: what follows is where the length says.
        bent(66, "TE empty + CL", .refusedAny) { a in
            let coded = a.coded("Transfer-Encoding:")
            return coded.adding("Content-Length: \(coded.size)")
        }
        bent(67, "TE twice identity/chunked", .answeredOrRefused) { a in
            a.coded("Transfer-Encoding: identity", "Transfer-Encoding: chunked")
        }
        bent(68, "TE twice chunked/chunked", .refused) { a in a.coded("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") }
        pair(151, 152, "chunked, chunked", "Transfer-Encoding: chunked, chunked", .refused)
        pair(153, 154, "chunked with spaces around it", "Transfer-Encoding:   chunked  ", .answered)
        pair(155, 156, "chunked\\x85", "Transfer-Encoding: chunked\u{85}", .refused)
        pair(157, 158, ",chunked", "Transfer-Encoding: ,chunked", .answeredOrRefused)
    }

    // MARK: Chunks

    private mutating func chunks() {
        /// A row whose chunked body is made of A's own.
        func body(
            _ number: Int,
            _ name: String,
            _ allowed: Allowed,
            gateway: Allowed? = nil,
            _ make: @escaping @Sendable (String) -> String
        ) {
            self.bent(number, name, allowed, gateway: gateway) { a in a.chunked(body: make(a.body)) }
        }
        let hex = { @Sendable (text: String) in String(text.byteCount, radix: 16) }
        body(69, "chunk ext ;a=b", .answered) { chunk($0, ";a=b") + lastChunk }
        body(70, "chunk ext ;a=\"b;c\"", .answered) { chunk($0, ";a=\"b;c\"") + lastChunk }
        body(71, "chunk ext 8 KB", .answeredOrRefused) { chunk($0, ";a=" + String(repeating: "x", count: 8_192)) + lastChunk }
        body(72, "chunk size 20 leading zeros", .answeredOrRefused) { "00000000000000000000" + chunk($0) + lastChunk }
        body(73, "chunk size 2^64+n", .refused) { "1" + String(repeating: "0", count: 16 - hex($0).count) + chunk($0) + lastChunk }
        body(74, "chunk size 0x", .refused) { "0x" + chunk($0) + lastChunk }
        body(75, "chunk size +n", .refused) { "+" + chunk($0) + lastChunk }
        body(76, "chunk size -n", .refused) { "-" + chunk($0) + lastChunk }
        body(77, "chunk size trailing space", .answeredOrRefused) { chunk($0, " ") + lastChunk }
        body(78, "chunk size LF only", .answeredOrRefused) { "\(hex($0))\n\($0)\r\n" + lastChunk }
        body(79, "chunk data without its CRLF", .refused) { "\(hex($0))\r\n\($0)" + lastChunk }
        body(80, "chunk data followed by XX", .refused) { "\(hex($0))\r\n\($0)XX\r\n" + lastChunk }
        body(81, "last chunk \"00\"", .answered) { chunk($0) + "00\r\n\r\n" }
        body(82, "chunk size leading space", .refused, gateway: .answeredOrRefused) { " " + chunk($0) + lastChunk }
        body(83, "trailers: CL, TE, Idempotency-Key", .answeredOrRefused) {
            chunk($0) + "0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nIdempotency-Key: DEC-trailer\r\n\r\n"
        }
        body(159, "chunk size 16 hex digits, all f", .refused) { "ffffffffffffffff\r\n\($0)\r\n" + lastChunk }
        body(160, "chunk size 2^63", .refused) { "8000000000000000\r\n\($0)\r\n" + lastChunk }
        body(161, "chunks of one byte", .answered) { $0.unicodeScalars.map { chunk(String($0)) }.joined() + lastChunk }
        body(162, "chunk ext with a bare CR", .answeredOrRefused) { chunk($0, ";a=\rb") + lastChunk }
        body(163, "chunk ext with a bare LF", .refused) { chunk($0, ";a=\nb") + lastChunk }
        body(164, "a trailer field that means nothing", .answeredOrRefused) { chunk($0) + "0\r\nX-Sum: 1\r\n\r\n" }
        body(165, "trailers of 100 KB", .either) {
            chunk($0) + "0\r\n" + (1...1_000).map { "X-Trailer-\($0): " + String(repeating: "x", count: 80) + "\r\n" }.joined() + "\r\n"
        }
        body(166, "chunk size empty", .refused) { "\r\n\($0)\r\n" + lastChunk }
        body(167, "last chunk with an ext", .answeredOrRefused) { chunk($0) + "0;a=b\r\n\r\n" }
        body(168, "an upper-case chunk size with zeros", .answeredOrRefused) { "000" + hex($0).uppercased() + "\r\n\($0)\r\n" + lastChunk }
        body(169, "chunks beyond 64 KiB in all", .refusedAny) { _ in
            String(repeating: chunk(String(repeating: " ", count: 8_192)), count: 9) + lastChunk
        }
        body(170, "a chunk ext on each of 2,000 chunks", .either) { text in
            // Spaces in front of a JSON document mean nothing.
            String(repeating: chunk(" ", ";ignored=yes"), count: 2_000) + chunk(text) + lastChunk
        }
    }

    // MARK: Targets

    private mutating func targets() {
        /// A row with another target. What the admin port's guard thinks of it is its own.
        func target(
            _ number: Int,
            _ name: String,
            _ allowed: Allowed,
            gateway: Allowed? = nil,
            _ traits: FramingCase.Traits = [],
            _ make: @escaping @Sendable (String, Draft) -> String
        ) {
            self.bent(number, name, allowed, gateway: gateway, traits) { a in
                var a = a
                a.target = make(a.target, a)
                return a
            }
        }
        target(84, "absolute-form target", .answered) { path, a in "http://\(a.value("Host"))\(path)" }
        target(85, "absolute-form, another host than Host", .either, [.guarded]) { path, _ in "http://elsewhere.example\(path)" }
        target(86, "absolute-form https", .either) { path, a in "https://\(a.value("Host"))\(path)" }
        self.bent(87, "authority-form CONNECT h:80", .refusedAny, [.changesNothing]) { a in
            var a = a.without("Content-Length").without("Content-Type")
            a.method = "CONNECT"
            a.target = "h:80"
            a.body = ""
            return a
        }
        target(88, "authority-form without CONNECT", .refusedAny) { _, _ in "h:80" }
        self.bent(89, "OPTIONS *", .either, [.changesNothing]) { a in
            var a = a.without("Content-Length")
            a.method = "OPTIONS"
            a.target = "*"
            a.body = ""
            return a
        }
        self.bent(90, "TRACE", .refusedAny, [.changesNothing]) { a in
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

    private mutating func hosts() {
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

    private mutating func versions() {
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

    private mutating func asking() {
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

    // MARK: Fields

    private mutating func fields() {
        bent(110, "Transfer_Encoding + CL", .either) { a in a.adding("Transfer_Encoding: chunked") }
        bent(125, "field without colon", .refused, gateway: .answeredOrRefused) { a in a.adding("no colon here") }
        bent(126, "empty field name", .refused, gateway: .answeredOrRefused) { a in a.adding(": empty") }
        bent(127, "8-bit field name", .refused, gateway: .answeredOrRefused) { a in a.adding("X-N\u{F6}te: a") }
        bent(128, "odd tchar name X!#$: 1", .answered) { a in a.adding("X!#$: 1") }
        // A rule of the route, whichever reader is in front of it.
        bent(135, "Content-Type twice", .refusedAny.or(.answered)) { a in a.adding("Content-Type: text/plain") }
        bent(136, "Content-Type of another kind", .refusedAny) { a in a.with("Content-Type", "Content-Type: text/plain") }
        bent(137, "Idempotency-Key twice", .either, [.keyIsUnclear]) { a in a.adding("Idempotency-Key: \(a.value("Idempotency-Key"))x") }
        bent(219, "Keep-Alive field", .answered) { a in a.adding("Keep-Alive: timeout=5, max=1000") }
        bent(220, "X-HTTP-Method-Override", .answered) { a in a.adding("X-HTTP-Method-Override: DELETE") }
        // Who names a proxy may be kept from what is for this machine alone.
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

    private mutating func connections() {
        /// A row with this `Connection`, or several.
        func option(_ number: Int, _ name: String, _ allowed: Allowed, gateway: Allowed? = nil, _ lines: [String]) {
            self.bent(number, name, allowed, gateway: gateway) { a in
                var a = a
                a.lines += lines
                return a
            }
        }
        option(119, "Connection: close then S", .closing, ["Connection: close"])
        option(120, "Connection: Close then S", .closing, ["Connection: Close"])
        option(121, "Connection: keep-alive, close", .closing, ["Connection: keep-alive, close"])
        option(122, "Connection: Content-Length", .either, ["Connection: Content-Length"])
        self.bent(123, "Connection: Transfer-Encoding + TE", .either) { a in a.chunked().adding("Connection: Transfer-Encoding") }
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
        self.bent(239, "Proxy-Connection: keep-alive in HTTP/1.0", .closing) { a in
            a.adding("Proxy-Connection: keep-alive").versioned("HTTP/1.0")
        }
    }

    // MARK: Bodies

    private mutating func bodies() {
        add(117, "GET with body = S", .alone, [.changesNothing], answers: 1) { a, s in
            [.send(Self.bodiless("GET", a, s).text + s.text)]
        }
        add(118, "DELETE with body = S", .alone, [.changesNothing], answers: 1) { a, s in
            var carrier = Self.bodiless("DELETE", a, s)
            // Nothing is there to be deleted.
            carrier.target += "/none"
            return [.send(carrier.text + s.text)]
        }
        add(138, "CL larger than sent (S swallowed)", .refusedAlone, answers: 1) { a, s in
            [.send(a.length("\(a.size + s.text.byteCount)").text + s.text)]
        }
        add(139, "CL one short", .refusedAll, [.changesNothing]) { a, s in [.send(a.length("\(a.size - 1)").text + s.text)] }
        add(240, "body, but neither CL nor TE", .refusedAll, [.changesNothing]) { a, s in [.send(a.without("Content-Length").text + s.text)]
        }
        add(241, "CL 0 in front of a body", .refusedAll, [.changesNothing]) { a, s in [.send(a.length("0").text + s.text)] }
        add(242, "HEAD with body = S", .alone, [.changesNothing], answers: 1, method: "HEAD") { a, s in
            [.send(Self.bodiless("HEAD", a, s).text + s.text)]
        }
        add(243, "HEAD, then S", .either, [.changesNothing], method: "HEAD") { a, s in
            var head = a.without("Content-Length").without("Content-Type")
            head.method = "HEAD"
            head.body = ""
            return [.send(head.text + s.text)]
        }
        add(244, "CL larger than ever sent", .waited, [.isIncomplete], answers: 0) { a, _ in [.send(a.length("\(a.size + 100)").text)] }
        add(245, "a chunked body without its end", .waited, [.isIncomplete], answers: 0) { a, _ in
            [.send(a.chunked(body: chunk(a.body)).text)]
        }
        add(246, "a head without its end", .waited, [.isIncomplete], answers: 0) { a, _ in
            [.send(String(a.text.unicodeScalars.prefix(60)))]
        }
        add(247, "a body of 64 KiB of spaces and JSON", .answered) { a, s in
            var a = a
            a.body = String(repeating: " ", count: 65_536 - a.size) + a.body
            return [.send(a.length("\(a.size)").text + s.text)]
        }
        add(248, "a body of one byte more than 64 KiB", .refusedAny) { a, s in
            var a = a
            a.body = String(repeating: " ", count: 65_537 - a.size) + a.body
            return [.send(a.length("\(a.size)").text + s.text)]
        }
        bent(249, "a body of another type of JSON", .refusedAny) { a in
            var a = a
            a.body = "[1,2,3]"
            return a.length("\(a.size)")
        }
        bent(250, "a body that is no UTF-8", .refusedAny) { a in
            var a = a
            a.body = "{\"orderId\":\"\u{FF}\u{FE}\"}"
            return a.length("\(a.size)")
        }
    }

    /// A request for reading whose body is all of S.
    private static func bodiless(_ method: String, _ a: Draft, _ s: Draft) -> Draft {
        var carrier = a.without("Content-Type").without("Idempotency-Key").length("\(s.text.byteCount)")
        carrier.method = method
        carrier.body = ""
        return carrier
    }

    // MARK: Odd bytes

    private mutating func oddBytes() {
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

    private mutating func sizes() {
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

    // MARK: Pipelines

    private mutating func tails() {
        add(263, "A, then garbage", .answeredThenRefused, answers: 2) { a, _ in [.send(a.text + "garbage garbage garbage garbage\r\n\r\n")]
        }
        add(264, "A, then half of S", .answeredAlone, [.isIncomplete], answers: 1) { a, s in
            [.send(a.text + String(s.text.unicodeScalars.prefix(s.text.byteCount / 2)))]
        }
        add(265, "A and S, a millisecond apart", .answered) { a, s in [.send(a.text), .pause(milliseconds: 1), .send(s.text)] }
        add(266, "A's head, then its body with S", .answered) { a, s in
            var head = a
            head.body = ""
            return [.send(head.text), .pause(milliseconds: 20), .send(a.body + s.text)]
        }
        add(267, "A and S, then the end", .answered, gateway: .answered.or(.aborted), [.finishesAtOnce]) { a, s in
            [.send(a.text + s.text), .finishSending]
        }
        add(268, "A alone, then the end", .answeredAlone, gateway: .answeredAlone.or(.aborted), [.finishesAtOnce], answers: 1) { a, _ in
            [.send(a.text), .finishSending]
        }
        add(269, "A, then a chunked S", .answered) { a, s in [.send(a.text + s.chunked().text)] }
        add(270, "a chunked A, then a chunked S, then the end", .answered, gateway: .answered.or(.aborted), [.finishesAtOnce]) { a, s in
            [.send(a.chunked().text + s.chunked().text), .finishSending]
        }
        add(271, "A with Connection: close, S a little later", .closing) { a, s in
            [.send(a.adding("Connection: close").text), .pause(milliseconds: 5), .send(s.text)]
        }
        add(272, "A in pieces of seven bytes", .answered) { a, s in
            let scalars = Array((a.text + s.text).unicodeScalars)
            return stride(from: 0, to: scalars.count, by: 7).flatMap { start -> [Step] in
                var piece = ""
                piece.unicodeScalars.append(contentsOf: scalars[start..<min(start + 7, scalars.count)])
                return [.send(piece), .pause(milliseconds: 1)]
            }
        }
        add(273, "A, then CRLF, then S", .answered) { a, s in [.send(a.text + "\r\n" + s.text)] }
        add(274, "A that is refused by its route, then S", .refusedAny, [.changesNothing]) { a, s in
            var bad = a
            bad.body = "{}"
            return [.send(bad.length("2").text + s.text)]
        }
    }
}

extension Draft {
    fileprivate func versioned(_ version: String) -> Draft {
        var draft = self
        draft.version = version
        return draft
    }

    fileprivate func methodical(_ method: String) -> Draft {
        var draft = self
        draft.method = method
        return draft
    }

    /// With as many fields in all.
    fileprivate func padded(fields count: Int) -> Draft {
        var draft = self
        while draft.lines.count < count { draft.lines.append("X-Field-\(draft.lines.count): \(draft.lines.count)") }
        return draft
    }
}

extension String {
    /// With another text for each CRLF of the head, or for the first ones.
    fileprivate func replacingCRLF(by replacement: String, first: Int = .max) -> String {
        var scalars = String.UnicodeScalarView()
        var rest = unicodeScalars[...]
        var count = 0
        while let scalar = rest.popFirst() {
            if scalar == "\r", rest.first == "\n", count < first {
                rest.removeFirst()
                count += 1
                scalars.append(contentsOf: replacement.unicodeScalars)
            } else {
                scalars.append(scalar)
            }
        }
        return String(scalars)
    }
}
