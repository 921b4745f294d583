import Logging
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

    @Test func aTextLineStaysOneLine() {
        let text = line(.text) { $0.info("hello\nFAKE info: line", metadata: ["password": "pw", "k": "v\r\n"]) }
        #expect(text.filter { $0 == "\n" }.count == 1)
        #expect(text.contains("info server: hello\\u{a}FAKE info: line k=v\\u{d}\\u{a} password=***"))
    }
}
