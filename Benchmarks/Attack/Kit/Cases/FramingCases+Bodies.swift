// Rows about bodies, and about what follows a request on its connection.

extension FramingCases {
    // MARK: Bodies

    mutating func bodies() {
        add(117, "GET with body = S", .alone, [.changesNothing], answers: 1) { a, s in
            [.send(Self.bodiless("GET", a, s).text + s.text)]
        }
        add(118, "DELETE with body = S", .alone, [.changesNothing], answers: 1) { a, s in
            var carrier = Self.bodiless("DELETE", a, s)
            // The path names nothing, so there is nothing to delete.
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

    // MARK: Pipelines

    mutating func tails() {
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
        add(267, "A and S, then the end", .answered) { a, s in
            [.send(a.text + s.text), .finishSending]
        }
        add(268, "A alone, then the end", .answeredAlone, answers: 1) { a, _ in
            [.send(a.text), .finishSending]
        }
        add(269, "A, then a chunked S", .answered) { a, s in [.send(a.text + s.chunked().text)] }
        add(270, "a chunked A, then a chunked S, then the end", .answered) { a, s in
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
