import NIOCore
import NIOEmbedded
import Testing

@testable import RedisClient

/// A handler on an embedded channel, whose time stands still until it is moved.
final class Embedded {
    let channel = EmbeddedChannel()
    let handler: RedisChannelHandler
    let counters = LoopCounters()
    var results: [Result<RedisValue, RedisError>?] = []

    init(_ change: (inout RedisConfiguration) -> Void = { _ in }) throws {
        var settings = RedisConfiguration()
        change(&settings)
        handler = RedisChannelHandler(eventLoop: channel.eventLoop, configuration: settings, counters: self.counters)
        try channel.pipeline.syncOperations.addHandler(handler)
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 6379)).wait()
    }

    deinit { _ = try? channel.finish(acceptAlreadyClosed: true) }

    @discardableResult
    func send(_ command: RedisCommand = .ping, milliseconds: Int64 = 50) -> RedisCommandID? {
        let index = results.count
        results.append(nil)
        return handler.send(deadline: channel.eventLoop.now + .milliseconds(milliseconds)) {
            self.results[index] = $0
        } encode: {
            command.encode(into: &$0)
        }
    }

    func tick() { channel.embeddedEventLoop.run() }

    func receive(_ text: String) { self.receive(Array(text.utf8)) }

    func receive(_ bytes: some Sequence<UInt8>) { _ = try? channel.writeInbound(ByteBuffer(bytes: bytes)) }

    func written() throws -> String? { try channel.readOutbound(as: ByteBuffer.self).map { String(buffer: $0) } }

    func value(_ index: Int) throws -> RedisValue? { try results[index]?.get() }

    func code(_ index: Int) -> RedisError.Code? {
        if case .failure(let error) = results[index] { error.code } else { nil }
    }
}

@Suite struct RedisChannelHandlerTests {
    /// A server that has become a replica is left, behind all replies that came with the one that says so; what is still out is unknown.
    @Test func readOnlyClosesBehindTheReplies() throws {
        for whole in [true, false] {
            let embedded = try Embedded()
            for _ in 0..<4 { embedded.send() }
            embedded.tick()
            let replies = "+A\r\n-READONLY You can't write against a read only replica.\r\n+B\r\n"
            if whole {
                embedded.receive(replies)
                #expect(try embedded.value(2) == .simpleString("B"))
            } else {
                for byte in replies.utf8.dropLast(4) { embedded.receive([byte]) }
                #expect(embedded.code(2) == .connectionLost(sent: true))
            }
            #expect(try embedded.value(0) == .simpleString("A"))
            guard case .server(let error)? = embedded.code(1) else {
                Issue.record("\(String(describing: embedded.results[1]))")
                continue
            }
            #expect(error.isReadOnly)
            #expect(embedded.code(3) == .connectionLost(sent: true))
            #expect(!embedded.channel.isActive)
            #expect(embedded.handler.closeReason?.detail == "the server is a replica now")
        }
    }

    @Test func commandsOfOneTurnLeaveInOneWrite() throws {
        let embedded = try Embedded()
        embedded.send(.ping)
        embedded.send(.evalSHA("abc", keys: ["k"], arguments: [.integer(-7), .bytes([0, 255])]))
        #expect(try embedded.written() == nil)
        embedded.tick()
        let bytes = try #require(try embedded.channel.readOutbound(as: ByteBuffer.self))
        let head = "*1\r\n$4\r\nPING\r\n*6\r\n$7\r\nEVALSHA\r\n$3\r\nabc\r\n$1\r\n1\r\n$1\r\nk\r\n$2\r\n-7\r\n$2\r\n"
        #expect(Array(bytes.readableBytesView) == Array(head.utf8) + [0, 255, 13, 10])
        #expect(try embedded.written() == nil)
        #expect(embedded.counters.flushes.current == 1)
        embedded.receive("+PONG\r\n:1\r\n")
        #expect(try embedded.value(0) == .simpleString("PONG"))
        #expect(try embedded.value(1) == .integer(1))
    }

    @Test(arguments: [0, 1, -1, 9, 10, -10, 99, 100, 12345, .max, .min] as [Int64])
    func integersAreWrittenInDecimal(_ number: Int64) throws {
        let embedded = try Embedded()
        embedded.send(RedisCommand("X", .integer(number), .buffer(ByteBuffer(string: ""))))
        embedded.tick()
        let text = String(number)
        #expect(try embedded.written() == "*3\r\n$1\r\nX\r\n$\(text.utf8.count)\r\n\(text)\r\n$0\r\n\r\n")
    }

    static let stream =
        "+OK\r\n:-42\r\n$5\r\na\r\nbc\r\n$-1\r\n*3\r\n:1\r\n*2\r\n$0\r\n\r\n-ERR in\r\n*0\r\n-NOSCRIPT none\r\n*-1\r\n$3\r\néx\r\n"

    static func checkStream(_ embedded: Embedded) throws {
        #expect(try embedded.value(0) == .simpleString("OK"))
        #expect(try embedded.value(1) == .integer(-42))
        #expect(try embedded.value(2) == .bulkString(Array("a\r\nbc".utf8)))
        #expect(try embedded.value(3) == .null)
        #expect(
            try embedded.value(4) == .array([.integer(1), .array([.bulkString([]), .error(RedisServerError("ERR in"))]), .array([])])
        )
        #expect(embedded.code(5) == .server(RedisServerError("NOSCRIPT none")))
        #expect(try embedded.value(6) == .null)
        #expect(try embedded.value(7)?.string == "éx")
    }

    @Test func repliesSplitAtEveryByte() throws {
        let bytes = Array(Self.stream.utf8)
        for cut in 0...bytes.count {
            let embedded = try Embedded()
            for _ in 0..<8 { embedded.send() }
            embedded.tick()
            embedded.receive(bytes[..<cut])
            embedded.receive(bytes[cut...])
            try Self.checkStream(embedded)
        }
        let embedded = try Embedded()
        for _ in 0..<8 { embedded.send() }
        embedded.tick()
        for byte in bytes { embedded.receive([byte]) }
        try Self.checkStream(embedded)
    }

    @Test(arguments: ["?\r\n", "hello\r\n", ":x\r\n", "$-2\r\n", "$x\r\n", "*-2\r\n", "*99999999999\r\n", "*2147483647\r\n", ":1x\r\n"])
    func malformedRepliesEndTheConnection(_ text: String) throws {
        let embedded = try Embedded()
        embedded.send()
        embedded.send()
        embedded.tick()
        embedded.send()
        embedded.receive(":1\r\n" + text)
        #expect(try embedded.value(0) == .integer(1))
        #expect(embedded.code(1) == .protocolViolation)
        #expect(embedded.code(2) == .connectionLost(sent: false))
        #expect(!embedded.channel.isActive && !embedded.handler.isOpen)
        embedded.send()
        #expect(embedded.code(3) == .notConnected)
        #expect(embedded.counters.protocolViolations.current == 1)
    }

    @Test func sevenLevelsAndNoMore() throws {
        let embedded = try Embedded()
        embedded.send()
        embedded.send()
        embedded.tick()
        embedded.receive(String(repeating: "*1\r\n", count: 7) + ":5\r\n")
        var value = try #require(try embedded.value(0))
        for _ in 0..<7 { value = try #require(value.array?.first) }
        #expect(value == .integer(5))
        embedded.receive(String(repeating: "*1\r\n", count: 9) + ":5\r\n")
        #expect(embedded.code(1) == .protocolViolation)
    }

    @Test func oversizeEndsTheConnection() throws {
        let embedded = try Embedded { $0.maximumReplyBytes = 10_000 }
        for _ in 0..<4 { embedded.send() }
        embedded.tick()
        // Each within the bound, together above it.
        for _ in 0..<3 { embedded.receive("$6000\r\n" + String(repeating: "x", count: 6000) + "\r\n") }
        #expect(try embedded.value(2)?.bytes?.count == 6000)
        embedded.receive("$100000\r\n" + String(repeating: "x", count: 9000))
        #expect(embedded.results[3] == nil)
        embedded.receive(String(repeating: "x", count: 9000))
        #expect(embedded.code(3) == .protocolViolation)
        let elements = try Embedded { $0.maximumArrayElements = 3 }
        elements.send()
        elements.send()
        elements.tick()
        elements.receive("*3\r\n:1\r\n:2\r\n:3\r\n*4\r\n")
        #expect(try elements.value(0)?.array?.count == 3)
        #expect(elements.code(1) == .protocolViolation)
    }

    @Test func aReplyWithoutACommandEndsTheConnection() throws {
        let embedded = try Embedded()
        embedded.receive("-ERR max number of clients reached\r\n")
        #expect(!embedded.channel.isActive)
        #expect(embedded.handler.closeReason?.code == .protocolViolation)
    }

    @Test func lateRepliesAreDroppedInOrder() throws {
        let embedded = try Embedded()
        embedded.send(milliseconds: 10)
        embedded.send(milliseconds: 10)
        embedded.tick()
        embedded.channel.embeddedEventLoop.advanceTime(by: .milliseconds(10))
        #expect(embedded.code(0) == .timedOut(sent: true) && embedded.code(1) == .timedOut(sent: true))
        embedded.send()
        embedded.tick()
        embedded.receive(":1\r\n:2\r\n:3\r\n")
        #expect(try embedded.value(2) == .integer(3))
        #expect(embedded.channel.isActive)
        #expect(embedded.counters.lateReplies.current == 2 && embedded.counters.timeouts.current == 2)
    }

    @Test func silenceEndsTheConnection() throws {
        let embedded = try Embedded { $0.silenceLimit = .milliseconds(200) }
        embedded.send(milliseconds: 50)
        embedded.tick()
        embedded.channel.embeddedEventLoop.advanceTime(by: .milliseconds(50))
        #expect(embedded.code(0) == .timedOut(sent: true) && embedded.channel.isActive)
        embedded.send(milliseconds: 1000)
        embedded.tick()
        embedded.channel.embeddedEventLoop.advanceTime(by: .milliseconds(149))
        #expect(embedded.channel.isActive)
        embedded.channel.embeddedEventLoop.advanceTime(by: .milliseconds(1))
        #expect(embedded.code(1) == .connectionLost(sent: true))
        #expect(!embedded.channel.isActive && embedded.counters.silences.current == 1)
    }

    @Test func closingTellsSentFromUnsent() throws {
        let embedded = try Embedded()
        embedded.send()
        embedded.tick()
        embedded.send()
        try embedded.channel.close().wait()
        #expect(embedded.code(0) == .connectionLost(sent: true))
        #expect(embedded.code(1) == .connectionLost(sent: false))
        embedded.tick()
    }

    @Test func cancelledCommandsKeepTheirPlace() throws {
        let embedded = try Embedded()
        let first = try #require(embedded.send())
        embedded.send()
        embedded.handler.cancel(first)
        #expect(embedded.code(0) == .cancelled(sent: false))
        embedded.tick()
        embedded.receive(":1\r\n:2\r\n")
        #expect(try embedded.value(1) == .integer(2))
    }

    @Test func theQueueIsBounded() throws {
        let embedded = try Embedded { $0.maximumPendingCommands = 2 }
        for _ in 0..<3 { embedded.send() }
        #expect(embedded.results[0] == nil && embedded.results[1] == nil && embedded.code(2) == .queueFull)
        let bytes = try Embedded { $0.maximumOutgoingBytes = 100 }
        bytes.send(.set("k", .string(String(repeating: "x", count: 200))))
        bytes.send()
        #expect(bytes.results[0] == nil && bytes.code(1) == .queueFull)
        bytes.tick()
        bytes.send()
        #expect(bytes.results[2] == nil)
        #expect(bytes.counters.queueFull.current == 1)
    }

    @Test func completionsMaySendAndClose() throws {
        let embedded = try Embedded()
        var nested: Result<RedisValue, RedisError>?
        _ = embedded.handler.send(deadline: embedded.channel.eventLoop.now + .seconds(1)) { _ in
            _ = embedded.handler.send(deadline: embedded.channel.eventLoop.now + .seconds(1)) {
                nested = $0
            } encode: {
                RedisCommand.ping.encode(into: &$0)
            }
            embedded.handler.close(RedisError(.closed))
        } encode: {
            RedisCommand.ping.encode(into: &$0)
        }
        embedded.send()
        embedded.tick()
        embedded.receive("+PONG\r\n+PONG\r\n")
        #expect(nested == .failure(RedisError(.connectionLost(sent: false))))
        #expect(embedded.code(0) == .connectionLost(sent: true))
    }

    @Test func drainingClosesAfterTheLastReply() throws {
        let embedded = try Embedded()
        embedded.send()
        embedded.handler.drain()
        embedded.tick()
        #expect(embedded.channel.isActive)
        embedded.receive("+PONG\r\n")
        #expect(try embedded.value(0) == .simpleString("PONG"))
        #expect(!embedded.channel.isActive)
    }
}
