import Testing

@testable import AttackKit

@Suite("The reader of answers")
struct AnswerReaderTests {
    private func read(_ text: String, methods: [String] = [], ends: Bool = false) throws -> [Answer] {
        var reader = AnswerReader(methods: methods)
        reader.append([UInt8](latin1: text))
        var answers: [Answer] = []
        while let answer = try reader.next() { answers.append(answer) }
        if ends, let last = try reader.finish() { answers.append(last) }
        return answers
    }

    private static let pair =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: a\r\n\r\nok"
        + "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nconnection: Close\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nX-Sum: 1\r\n\r\n"

    @Test func answersAreTheSameHoweverTheyAreSplit() throws {
        let whole = try read(Self.pair)
        #expect(whole.map(\.status) == [200, 404])
        #expect(whole.map { $0.body.latin1 } == ["ok", "abcd"])
        #expect(whole.map(\.announcesClose) == [false, true])
        #expect(whole[0].requestID == "a")
        let bytes = [UInt8](latin1: Self.pair)
        for cut in 0...bytes.count {
            var reader = AnswerReader()
            var answers: [Answer] = []
            for part in [bytes[..<cut], bytes[cut...]] {
                reader.append(Array(part))
                while let answer = try reader.next() { answers.append(answer) }
            }
            #expect(answers == whole, "cut at \(cut)")
            #expect(try reader.finish() == nil)
        }
    }

    @Test(arguments: [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "length twice"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Content-Length and Transfer-Encoding"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "Content-Length: +2"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "Transfer-Encoding: gzip"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk's size"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "does not end where it says"),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204"),
        ("HTTP/1.1 200 OK\r\nX Y: 1\r\n\r\n", "malformed header field"),
        ("HTTP/1.1 200 OK\r\nX: a\u{0}b\r\n\r\n", "malformed header field"),
        ("HTTP/1.1 200 OK\r\n folded\r\n\r\n", "malformed header field"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "no status line"), ("HTTP/2 200 OK\r\n\r\n", "no status line"), ("<html>", "no status line"),
        ("{\"error\":1}", "no status line"),
    ])
    func whatALenientClientWouldMendIsAFault(_ text: String, _ why: String) {
        let fault = #expect(throws: AnswerFault.self) { try read(text) }
        #expect(fault.map { "\($0)".contains(why) } == true, "\(fault.map { "\($0)" } ?? "nothing")")
    }

    @Test func aBodyEndsWhereItsRequestAndStatusSay() throws {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        let heads = try read(head + head + "hello", methods: ["HEAD", "GET"])
        #expect(heads.map { $0.body.latin1 } == ["", "hello"])
        #expect(heads.map(\.framing) == [.none, .length])
        let interim = try read("HTTP/1.1 100 Continue\r\n\r\n" + head + "hello")
        #expect(interim.map(\.status) == [100, 200])
        #expect(interim[0].isInterim)
        let open = try read("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it", ends: true)
        #expect(open.map { $0.body.latin1 } == ["all of it"])
        #expect(open[0].framing == .connection)
    }

    @Test func anAnswerThatIsCutOffIsAFault() throws {
        #expect(throws: AnswerFault.cutOff) { try read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", ends: true) }
        #expect(throws: AnswerFault.cutOff) { try read("HTTP/1.1 200 OK\r\nContent-Le", ends: true) }
        #expect(throws: AnswerFault.cutOff) { try read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", ends: true) }
    }

    @Test(arguments: [
        ("application/json", Written.error, true), ("application/json; charset=utf-8", Written.error, true),
        ("application/problem+json", "{\"title\":\"X\",\"detail\":\"No.\",\"error\":\"X\",\"details\":null}", true),
        ("text/html", "<html></html>", false), ("text/plain", Written.error, false), ("application/json", "", false),
        ("application/json", "[]", false), ("application/json", "{\"error\":\"X\",\"message\":\"\",\"details\":null}", false),
        ("application/json", "{\"error\":\"X\",\"message\":\"No.\"}", false),
        ("application/json", "{\"message\":\"No.\",\"details\":null}", false),
        ("application/json", "{\"error\":7,\"message\":\"No.\",\"details\":null}", false),
    ])
    func anErrorHasTheOneShape(_ type: String, _ body: String, _ isShape: Bool) throws {
        let answer = try #require(try read(Written.answer(400, id: "a", body: body, type: type)).first)
        #expect((answer.errorShapeFault == nil) == isShape, "\(answer.errorShapeFault ?? "no fault")")
    }

    @Test(arguments: [
        ("close", true), ("Close", true), ("keep-alive, close", true), ("foo , CLOSE", true), ("keep-alive", false), ("closed", false),
        ("", false),
    ])
    func connectionCloseIsSeenInAnyCaseAndList(_ value: String, _ closes: Bool) throws {
        let answer = try #require(try read("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: \(value)\r\n\r\n").first)
        #expect(answer.announcesClose == closes)
    }
}
