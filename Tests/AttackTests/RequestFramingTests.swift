import Testing

@testable import AttackKit

@Suite("What bytes mean as requests")
struct RequestFramingTests {
    private enum Kind: String {
        case whole, refused, doubtful, incomplete
    }

    private func kinds(_ text: String) -> [Kind] {
        RequestFraming.read([UInt8](latin1: text)).map { element in
            switch element {
            case .whole: .whole
            case .refused: .refused
            case .doubtful: .doubtful
            case .incomplete: .incomplete
            }
        }
    }

    private static let host = "Host: a\r\n"

    @Test func wholeRequestsEndWhereTheySay() throws {
        let first = "POST /a HTTP/1.1\r\n\(Self.host)Content-Length: 3\r\n\r\nabc"
        let second = "POST /b HTTP/1.1\r\n\(Self.host)Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        let third = "GET /c HTTP/1.1\r\n\(Self.host)Connection: x, Close\r\n\r\n"
        let elements = RequestFraming.read([UInt8](latin1: first + second + third + "GET /never HTTP/1.1\r\n"))
        let ends = [first.utf8.count, first.utf8.count + second.utf8.count, first.utf8.count + second.utf8.count + third.utf8.count]
        guard case .whole(0..<ends[0], let one) = elements[0], case .whole(ends[0]..<ends[1], let two) = elements[1],
            case .whole(ends[1]..<ends[2], let three) = elements[2]
        else {
            Issue.record("\(elements)")
            return
        }
        #expect(elements.count == 3)
        #expect([one, two, three].map(\.isLast) == [false, false, true])
        #expect([one, two, three].map(\.method) == ["POST", "POST", "GET"])
        #expect([one, two, three].allSatisfy { $0.fault == nil })
    }

    @Test func anythingCutShortIsIncomplete() {
        let text = "POST /a HTTP/1.1\r\n\(Self.host)Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        for count in 1..<text.utf8.count {
            #expect(kinds(String(text.unicodeScalars.prefix(count))) == [.incomplete], "\(count) bytes")
        }
    }

    @Test(arguments: [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", "refused"), ("Content-Length: 3\r\nContent-Length: 4", "refused"),
        ("Content-Length: +3", "refused"), ("Content-Length: 3 3", "refused"), ("Content-Length: 99999999999999999999", "refused"),
        ("Content-Length : 3", "refused"), ("Transfer-Encoding: gzip, chunked", "doubtful"),
        ("Transfer-Encoding: chunked, chunked", "refused"),
        ("Transfer-Encoding: chunked, identity", "refused"),
        ("Transfer-Encoding:", "refused"), ("Content-Length: 3\r\nContent-Length: 3", "doubtful"), ("Content-Length: 3, 3", "doubtful"),
        ("Content-Length: 3\r\n folded: yes", "doubtful"), ("no colon", "doubtful"), ("X: a\u{0}", "doubtful"), ("X: a\rb", "doubtful"),
        ("X: a\nY: b", "doubtful"), ("X\u{E9}: a", "doubtful"), ("X: caf\u{E9}\r\nContent-Length: 3", "whole"),
        ("Content-Length: 003", "whole"), ("Content-Length:\t3 ", "whole"), ("CONTENT-LENGTH: 3", "whole"),
    ])
    func aHeadIsReadAsTheRFCHasIt(_ lines: String, _ kind: String) {
        #expect(kinds("POST /a HTTP/1.1\r\n\(Self.host)\(lines)\r\n\r\nabc").first?.rawValue == kind)
    }

    @Test(
        arguments: [
            ("", "0 Host fields"), ("Host: a\r\nHost: a\r\n", "2 Host fields"), ("Host: a b\r\n", "Host a b"),
            ("Host: a:b\r\n", "Host a:b"), ("Host: a@b\r\n", "Host a@b"),
            ("Host: a:80\r\n", nil), ("Host: a,b\r\n", nil), ("Host: [::1]:80\r\n", nil), ("Host: a:1:2\r\n", "Host a:1:2"),
            ("Host: 127.0.0.1:8081\r\n", nil),
        ] as [(String, String?)]
    )
    func aHostIsThereOnceAndWellFormed(_ lines: String, _ fault: String?) {
        guard case .whole(_, let request)? = RequestFraming.read([UInt8](latin1: "GET / HTTP/1.1\r\n\(lines)\r\n")).first else {
            Issue.record("not whole")
            return
        }
        #expect(request.fault == fault)
    }

    /// The table's expectations and this reader must say the same of the same bytes.
    @Test(arguments: FramingCases.all.map(\.number))
    func theTableAgreesWithTheReader(_ number: Int) throws {
        let row = try #require(FramingCases.all.first { $0.number == number })
        let requests = Requests(run: "t", goods: Goods(hot: 7, hotCode: "C", plain: 8), base: 1_000)
        for target in [Target.productHot, .orderHot, .orderRouter] {
            let steps = row.steps(requests.changing(target, 1, port: 8081), requests.changing(target, 2, port: 8081))
            let text = steps.map { if case .send(let text) = $0 { text } else { "" } }.joined()
            let kinds = kinds(text)
            let allowed = row.servers.outcomes
            // What must be answered is whole; what must be refused for its framing is not two whole requests.
            if allowed == Allowed.answered.outcomes {
                #expect(kinds == [.whole, .whole] || kinds.contains(.doubtful), "\(row.name): \(kinds)")
            }
            if allowed == Allowed.refused.outcomes, kinds.count == 2, kinds.allSatisfy({ $0 == .whole }) {
                // Their ends are known, but they are too large or too strange to be read on.
                #expect([18, 184, 262].contains(number), "\(row.name) is two whole requests")
            }
            if row.traits.contains(.isIncomplete) { #expect(kinds.last == .incomplete, "\(row.name): \(kinds)") }
        }
    }
}
