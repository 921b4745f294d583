import NIOCore
import Testing

@testable import FlashSaleKit

@Suite("Answers as bytes")
struct AnswerParserTests {
    /// What comes of bytes that arrive in these pieces: `status:body` of each answer, then what ended it.
    private func read(_ pieces: [String], bodyLimit: Int = 100, ends: Bool = false) -> [String] {
        var parser = AnswerParser(bodyLimit: bodyLimit)
        var bytes = ByteBuffer()
        var seen: [String] = []
        for piece in pieces {
            bytes.writeString(piece)
            do {
                while let answer = try parser.next(&bytes) {
                    seen.append("\(answer.answer.status):\(String(buffer: answer.answer.body))\(answer.keepsAlive ? "" : " close")")
                }
            } catch {
                return seen + [error == .tooLarge ? "too large" : "malformed"]
            }
        }
        if ends, let answer = parser.end() { seen.append("\(answer.answer.status):\(String(buffer: answer.answer.body)) end") }
        return seen
    }

    private static let cases: [(text: String, seen: [String])] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ["200:ok"]),
        ("HTTP/1.1 200\r\nCONTENT-LENGTH:2 \r\nX: y\r\n\r\nok", ["200:ok"]),
        ("HTTP/1.1 200 OK\r\nContent-Length:\t 2\t \r\n\r\nok", ["200:ok"]),
        ("HTTP/1.1 200 OK\r\nContent-Length: 00000000000002\r\n\r\nok", ["200:ok"]),
        ("HTTP/1.1 200 OK\r\nConnection: \tkeep-alive \r\nContent-Length: 2\r\n\r\nok", ["200:ok"]),
        ("HTTP/1.1 200 OK\r\nConnection: Keep-Alive, close\r\nContent-Length: 2\r\n\r\nok", ["200:ok close"]),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", ["200:"]),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", ["200:ok close"]),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", ["200:ok"]),
        ("HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 2\r\n\r\nok", ["200:ok close"]),
        ("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx", ["204:", "404:x"]),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", ["200:a"]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n", ["200:abcde"]),
    ]

    @Test func splitAnywhereTheyAreTheSame() {
        for example in Self.cases {
            #expect(read([example.text]) == example.seen, "\(example.text.debugDescription)")
            #expect(read(example.text.unicodeScalars.map { String($0) }) == example.seen, "byte by byte: \(example.text.debugDescription)")
            let bytes = Array(example.text.utf8)
            for cut in 1..<bytes.count {
                let pieces = [String(decoding: bytes[..<cut], as: UTF8.self), String(decoding: bytes[cut...], as: UTF8.self)]
                #expect(read(pieces) == example.seen, "cut at \(cut): \(example.text.debugDescription)")
            }
        }
    }

    @Test func aBodyWithoutALengthEndsWithTheConnection() {
        let pieces = ["HTTP/1.1 200 OK\r\n\r\n", "ab", "cd"]
        #expect(read(pieces) == [])
        #expect(read(pieces, ends: true) == ["200:abcd end"])
        #expect(read(["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"], ends: true) == [], "an answer that was cut off is none")
    }

    @Test(arguments: [
        "SSH-2.0", "HTTP/2 200 OK\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        "HTTP/1.1 200 OK\r\nX: " + String(repeating: "x", count: 70_000),
    ])
    func whatIsNoAnswerIsSaid(text: String) {
        #expect(read([text]) == ["malformed"])
    }

    @Test func bodiesAreBounded() {
        #expect(read(["HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n"]) == ["too large"])
        #expect(read(["HTTP/1.1 200 OK\r\n\r\n" + String(repeating: "x", count: 101)]) == ["too large"])
        #expect(
            read(["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n" + String(repeating: "x", count: 64) + "\r\n40\r\n"]) == [
                "too large"
            ]
        )
    }
}
