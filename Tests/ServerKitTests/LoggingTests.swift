import Logging
import StrictJSON
import Synchronization
import Testing

@testable import ServerKit

@Suite struct LoggingTests {
    private final class Lines: Sendable {
        let text = Mutex("")
    }

    private func line(_ format: LogFormat, _ log: (Logger) -> Void) -> String {
        let lines = Lines()
        log(
            Logger(label: "server") { label in
                ServerLogHandler(label: label, level: .info, format: format) { line in
                    lines.text.withLock { $0 += String(decoding: line, as: UTF8.self) }
                }
            }
        )
        return lines.text.withLock { $0 }
    }

    @Test func jsonLinesMaskSecrets() throws {
        let text = line(.json) {
            $0.error(
                "cannot reach redis://:pw@host",
                metadata: ["adminToken": "s3cret", "url": "amqp://u:pw@h/", "n": "1", "hb.request.id": "abc", "quote": "a\"b\nc"]
            )
            $0.debug("not logged")
        }
        #expect(text.hasSuffix("}\n") && text.filter { $0 == "\n" }.count == 1)
        let value = try JSONDocument(text.utf8).value
        #expect(value["level"] == "error")
        #expect(value["message"] == "cannot reach redis://:***@host")
        #expect(value["adminToken"] == "***")
        #expect(value["url"] == "amqp://u:***@h/")
        #expect(value["requestId"] == "abc")
        #expect(value["quote"] == "a\"b\nc")
    }

    /// A value that a caller chose, and how it must stand in a line.
    @Test(arguments: [
        ("plain-1:2", "plain-1:2"), ("재고", "재고"), ("", #""""#), ("a b", #""a b""#), ("a=b", #""a=b""#), ("say \"x\"", #""say \"x\"""#),
        ("x level=error", #""x level=error""#), ("x\" k2=\"y", #""x\" k2=\"y""#), (#"a\"#, #""a\\""#), (#"a\" b=c"#, #""a\\\" b=c""#),
        ("a\u{3000}b", "\"a\u{3000}b\""), ("a\tb", #"a\u{9}b"#), ("a\u{1B}[2K", #"a\u{1b}[2K"#),
        ("a\u{7F}\u{85}\u{9B}b", #"a\u{7f}\u{85}\u{9b}b"#),
        ("a\u{202A}\u{202B}\u{202C}\u{202D}\u{202E}", #"a\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}"#),
        ("a\u{2066}\u{2067}\u{2068}\u{2069}", #"a\u{2066}\u{2067}\u{2068}\u{2069}"#),
        ("a\u{200E}\u{200F}\u{61C}", #"a\u{200e}\u{200f}\u{61c}"#),
        ("a\u{2028}\u{2029}b", #"a\u{2028}\u{2029}b"#), ("\u{FEFF}a\u{200B}\u{E0041}", #"\u{feff}a\u{200b}\u{e0041}"#),
    ])
    func aValueForgesNothing(value: String, written: String) throws {
        let metadata: Logger.Metadata = ["k": "\(value)", "next": "1"]
        let text = line(.text) { $0.info("told", metadata: metadata) }
        #expect(text.hasSuffix(" info server: told k=\(written) next=1\n"))
        #expect(LoggingTests.fields(of: text) == ["k", "next"])
        let json = line(.json) { $0.info("told", metadata: metadata) }
        #expect(!json.dropLast().unicodeScalars.contains(where: LogText.isHidden))
        let parsed = try JSONDocument(json.utf8).value
        #expect(parsed["k"] == .string(value) && parsed["next"] == "1" && parsed["message"] == "told")
    }

    @Test func aMessageForgesNothing() {
        let text = line(.text) { $0.info("no product \("7 actor=root") here", metadata: ["k": "v"]) }
        #expect(text.hasSuffix(#" info server: "no product 7 actor=root here" k=v"# + "\n"))
        #expect(LoggingTests.fields(of: text) == ["k"])
        #expect(line(.text) { $0.info("a plain one: 7 of 8", metadata: [:]) }.hasSuffix(" info server: a plain one: 7 of 8\n"))
    }

    /// The names of the fields that a reader of the text form finds: words in front of `=` outside of quotes.
    private static func fields(of line: String) -> [String] {
        var (names, word, isQuoted, isEscaped) = ([String](), "", false, false)
        for character in line.drop(while: { $0 != " " }) {
            if isEscaped {
                isEscaped = false
            } else if isQuoted, character == "\\" {
                isEscaped = true
            } else if character == "\"" {
                isQuoted.toggle()
            } else if !isQuoted, character == "=" {
                names.append(word)
            }
            word = character == " " && !isQuoted ? "" : word + String(character)
        }
        return names
    }

    @Test func aTextLineStaysOneLine() {
        let text = line(.text) { $0.info("hello\nFAKE info: line", metadata: ["password": "pw", "k": "v\r\n"]) }
        #expect(text.filter { $0 == "\n" }.count == 1)
        #expect(text.contains("info server: hello\\u{a}FAKE info: line k=v\\u{d}\\u{a} password=***"))
    }
}
