import Testing

@testable import RedisClient

/// What a server may claim, true or not: each is a reply, a wait for more, or a failure with words, and never a trap.
@Suite struct ReplyReaderTests {
    private func read(_ text: String, maximumBytes: Int = 1 << 16, maximumElements: Int = 1024) throws -> ReplyReader.Result {
        let reader = try #require(ReplyReader(maximumBytes: maximumBytes, maximumElements: maximumElements))
        Array(text.utf8).withUnsafeBytes { reader.feed($0) }
        return reader.next()
    }

    @Test(
        arguments: [
            (":9223372036854775807\r\n", .integer(.max)), (":-9223372036854775808\r\n", .integer(.min)), (":0\r\n", .integer(0)),
            ("$-1\r\n", .null), ("*-1\r\n", .null), ("*0\r\n", .array([])), ("$0\r\n\r\n", .bulkString([])),
            (
                "*2\r\n:-9223372036854775808\r\n$20\r\n-9223372036854775808\r\n",
                .array([.integer(.min), .bulkString(Array("-9223372036854775808".utf8))])
            ),
        ] as [(String, RedisValue)]
    )
    func replies(_ text: String, _ value: RedisValue) throws {
        guard case .reply(let read) = try read(text) else {
            Issue.record("no reply: \(text)")
            return
        }
        #expect(read == value)
    }

    @Test(arguments: [
        ":9223372036854775808\r\n", ":-9223372036854775809\r\n", ":99999999999999999999999999\r\n", ":\r\n", ":1x\r\n", "$-2\r\n",
        "$99999999999999999999\r\n", "*-2\r\n", "*2147483648\r\n", "*9223372036854775807\r\n", "*1025\r\n", "!5\r\n", "\u{0}\r\n",
    ])
    func failures(_ text: String) throws {
        guard case .failed(let why) = try read(text) else {
            Issue.record("not refused: \(text)")
            return
        }
        #expect(!why.isEmpty)
    }

    /// Lengths that are only claimed: nothing is reserved for them, and what is read meanwhile is bounded.
    @Test(arguments: ["$9223372036854775807\r\n", "$9223372036854775805\r\n", "$1152921504606846976\r\nabc", "*1024\r\n:1\r\n"])
    func claims(_ text: String) throws {
        guard case .needMore = try read(text) else {
            Issue.record("not waited for: \(text)")
            return
        }
        guard case .failed = try read(text + String(repeating: "x", count: 200), maximumBytes: 100) else {
            Issue.record("not bounded: \(text)")
            return
        }
    }
}
