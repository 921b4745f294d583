// Rows about where a request's body ends: its length, its lines, its codings and its chunks.

extension FramingCases {
    // MARK: Content-Length

    mutating func lengths() {
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

    mutating func lines() {
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

    mutating func codings() {
        /// A row with this coding alone, and one with a length beside it, which is refused whatever the coding is.
        func pair(_ alone: Int, _ beside: Int, _ name: String, _ line: String, _ allowed: Allowed, _ gateway: Allowed? = nil) {
            bent(alone, "TE \(name)", allowed, gateway: gateway) { a in a.coded(line) }
            bent(beside, "TE \(name) + CL", .refused) { a in
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

    mutating func chunks() {
        /// A row whose chunked body is made of A's own.
        func body(
            _ number: Int,
            _ name: String,
            _ allowed: Allowed,
            gateway: Allowed? = nil,
            _ make: @escaping @Sendable (String) -> String
        ) {
            bent(number, name, allowed, gateway: gateway) { a in a.chunked(body: make(a.body)) }
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
