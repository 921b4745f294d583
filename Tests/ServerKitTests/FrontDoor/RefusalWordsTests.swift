import HotPath
import NIOCore
import Testing

@testable import ServerKit

@Suite("The words of a refusal")
struct RefusalWordsTests {
    static let asks = "Accept: application/problem+json\r\nAccept-Language: ko\r\nX-Request-Id: mine-1\r\n"

    @Test(
        "a request that is refused by the reader is answered in its own language and shape, and under its own name",
        arguments: [
            ("GET /o HTTP/1.1\r\n\(RefusalWordsTests.asks)\r\n", 400),
            ("GET /o HTTP/1.1\r\nHost: a\r\n\(RefusalWordsTests.asks)Host: a\r\n\r\n", 400),
            ("GET /o HTTP/1.1\r\nHost: [zz]\r\n\(RefusalWordsTests.asks)\r\n", 400),
            ("GET /o HTTP/3.0\r\nHost: a\r\n\(RefusalWordsTests.asks)\r\n", 400),
            ("GET o HTTP/1.1\r\nHost: a\r\n\(RefusalWordsTests.asks)\r\n", 400),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\(RefusalWordsTests.asks)\r\n", 405),
            ("POST /o HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\(RefusalWordsTests.asks)\r\n", 400),
            ("POST /o HTTP/1.1\r\nHost: a\r\n\(RefusalWordsTests.asks)Content-Length: x\r\n\r\n", 400),
            ("POST /o HTTP/1.1\r\nHost: a\r\n\(RefusalWordsTests.asks)X: a\u{7F}b\r\n\r\n", 400),
            ("POST /o HTTP/1.1\r\nHost: a\r\nX : b\r\n\(RefusalWordsTests.asks)\r\n", 400),
            ("POST /o HTTP/1.1\r\nHost: a\r\n\(RefusalWordsTests.asks)Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST /o HTTP/1.1\r\nHost: a\r\n\(RefusalWordsTests.asks)Transfer-Encoding: gzip\r\n\r\n", 400),
            ("POST /o HTTP/1.1\r\nHost: a\r\n\(RefusalWordsTests.asks)Content-Length: 99999999\r\n\r\n", 413),
            ("POST /o HTTP/1.1\r\nHost: a\r\n\(RefusalWordsTests.asks)Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
            ("GET /o HTTP/1.1\r\nHost: a\r\n\(RefusalWordsTests.asks)" + String(repeating: "X: 1\r\n", count: 101) + "\r\n", 400),
        ]
    )
    func asked(request: String, status: Int) throws {
        let bed = try FrontDoorBed()
        try bed.send(request)
        let answer = try #require(bed.answers().first)
        #expect(answer.status == status)
        #expect(answer["content-language"] == "ko")
        #expect(answer["content-type"] == "application/problem+json")
        #expect(answer["x-request-id"] == "mine-1")
        #expect(answer["connection"] == "close")
        #expect(bed.isEnded)
    }

    @Test("so is one that ends, or is given up, in the middle")
    func cutOff() throws {
        for part in [
            "POST /o HTTP/1.1\r\nHost: a\r\n\(RefusalWordsTests.asks)Content-Le",
            "POST /o HTTP/1.1\r\nHost: a\r\n\(Self.asks)Content-Length: 5\r\n\r\nab",
        ] {
            let bed = try FrontDoorBed()
            try bed.send(part)
            bed.halfClose()
            let answer = try #require(bed.answers().first)
            #expect(answer.status == 400)
            #expect(answer["content-language"] == "ko" && answer["x-request-id"] == "mine-1", "\(answer)")
        }
    }

    @Test("the answer to a HEAD has no body, also where the head was refused")
    func head() throws {
        let bed = try FrontDoorBed()
        try bed.send("HEAD /o HTTP/1.1\r\n\r\n")
        #expect(bed.socket.takeWritten().hasSuffix("\r\n\r\n"))
    }

    @Test("what stands behind the head, and a name that is none, decides nothing")
    func foreign() {
        func read(_ text: String) -> RefusedRequest { RefusedRequest(partial: ByteBuffer(string: text)) }
        #expect(read("GET / HTTP/1.1\r\nX: \u{1}\r\n\r\nAccept-Language: ko\r\n").acceptLanguage == nil)
        #expect(read("GET / HTTP/1.1\r\nX-Request-Id: a b\r\nX-Request-Id: c\r\n").id == "c")
        #expect(read("GET / HTTP/1.1\r\nAccept-Language: ko\r\nAccept-Language: en\r\nAccep").acceptLanguage == "ko")
        for text in ["", "\n", "\r\n", "G", "GET / HTTP/1.1\n", "GET / HTTP/1.1\r\n:", "\u{0}\n\u{0}\n\u{0}"] {
            #expect(read(text).accept == nil, "\(text)")
        }
    }
}
