import NIOCore
import NIOPosix
import Testing

@testable import FlashSaleKit

@Suite("The HTTP connection", .timeLimit(.minutes(10)))
struct HTTPConnectionTests {
    private let group = MultiThreadedEventLoopGroup.singleton

    /// What came of several requests, one after another, on one connection.
    private struct Run: Sendable {
        var results: [Result<HTTPAnswer, HTTPFailure>] = []
        var connections = 0

        var bodies: [String?] { results.map { (try? $0.get()).map { String(buffer: $0.body) } } }
        var failures: [HTTPFailure?] {
            results.map {
                if case .failure(let failure) = $0 { failure } else { nil }
            }
        }
    }

    private func run(_ steps: [ScriptedServer.Step], requests: Int, timeout: TimeAmount = .seconds(60), bodyLimit: Int = 1024) async throws
        -> Run
    {
        let server = try await ScriptedServer(steps, group: group)
        let run = try await run(address: server.address, requests: requests, timeout: timeout, bodyLimit: bodyLimit)
        await server.close()
        return run
    }

    private func run(address: SocketAddress, requests: Int, timeout: TimeAmount, bodyLimit: Int) async throws -> Run {
        let eventLoop = group.next()
        let connection = try await eventLoop.submit {
            NIOLoopBound(
                HTTPConnection(eventLoop: eventLoop, address: address, timeout: timeout, bodyLimit: bodyLimit),
                eventLoop: eventLoop
            )
        }.get()
        var run = Run()
        for _ in 0..<requests {
            let promise = eventLoop.makePromise(of: Result<HTTPAnswer, HTTPFailure>.self)
            eventLoop.execute {
                connection.value.send(ByteBuffer(string: "GET / HTTP/1.1\r\nHost: test\r\n\r\n")) { promise.succeed($0) }
            }
            run.results.append(try await promise.futureResult.get())
        }
        run.connections = try await eventLoop.submit {
            defer { connection.value.close() }
            return connection.value.connectionsMade
        }.get()
        return run
    }

    @Test func oneConnectionServesManyRequests() async throws {
        let run = try await run(Array(repeating: .answer([ScriptedServer.ok]), count: 50), requests: 50)
        #expect(run.bodies == Array(repeating: "ok", count: 50))
        #expect(run.connections == 1)
    }

    @Test func anAnswerSplitAtEveryByteIsOneAnswer() async throws {
        let pieces = ScriptedServer.ok.map(String.init)
        let run = try await run([.answer(pieces), .answer(pieces)], requests: 2)
        #expect(run.bodies == ["ok", "ok"])
        #expect(run.connections == 1)
    }

    @Test func chunkedBodiesAndRetryAfterAreRead() async throws {
        let text =
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        let run = try await run([.answer([text])], requests: 1)
        let answer = try #require(try? run.results[0].get())
        #expect(answer.status == 503)
        #expect(answer.retryAfter == .seconds(2))
        #expect(String(buffer: answer.body) == "abcde")
    }

    @Test func aConnectionClosedInTheMiddleOfAnAnswerFailsAndTheNextIsNew() async throws {
        let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
        let run = try await run([.answerAndClose(half), .close, .answer([ScriptedServer.ok])], requests: 3)
        #expect(run.failures[0] == .closed)
        #expect(run.failures[1] == .closed)
        #expect(run.bodies[2] == "ok")
        #expect(run.connections == 3)
    }

    @Test func connectionCloseIsHeeded() async throws {
        let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        let run = try await run([.answerAndClose(last), .answer([ScriptedServer.ok])], requests: 2)
        #expect(run.bodies == ["ok", "ok"])
        #expect(run.connections == 2)
    }

    @Test func silenceEndsAtTheDeadline() async throws {
        let began = ContinuousClock.now
        let run = try await run([.silence, .answer([ScriptedServer.ok])], requests: 2, timeout: .seconds(3))
        #expect(run.failures[0] == .timedOut)
        #expect(run.bodies[1] == "ok")
        #expect(ContinuousClock.now - began >= .seconds(3))
    }

    @Test func aLateAnswerNeverMeetsTheNextRequest() async throws {
        let wrong = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
        let run = try await run(
            // Well apart: the first one's time is over at 4 s, its answer comes at 5.5 s, and that of the second at 6 s.
            [.late(.milliseconds(5500), wrong), .late(.milliseconds(2000), ScriptedServer.ok)],
            requests: 2,
            timeout: .seconds(4)
        )
        #expect(run.failures[0] == .timedOut)
        #expect(run.bodies[1] == "ok")
        #expect(run.connections == 2)
    }

    @Test func abodyBeyondTheLimitIsRefused() async throws {
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + String(repeating: "x", count: 2000)
        let run = try await run([.answer([long]), .answer([ScriptedServer.ok])], requests: 2)
        #expect(run.failures[0] == .tooLarge)
        #expect(run.bodies[1] == "ok")
    }

    @Test func whatIsNoHTTPIsMalformed() async throws {
        let run = try await run([.answer(["SSH-2.0-OpenSSH\r\n"])], requests: 1)
        guard case .malformed = run.failures[0] else {
            Issue.record("\(run.failures)")
            return
        }
    }

    @Test func nobodyThereIsSaid() async throws {
        let server = try await ScriptedServer([], group: group)
        await server.close()
        let run = try await run(address: server.address, requests: 2, timeout: .seconds(2), bodyLimit: 10)
        for failure in run.failures {
            guard case .connect = failure else {
                Issue.record("\(run.failures)")
                return
            }
        }
    }

    @Test(arguments: ["http://127.0.0.1:8000", "http://127.0.0.1:8000/", "http://127.0.0.1:8000/base/"])
    func endpoints(url: String) throws {
        let endpoint = try HTTPEndpoint(url)
        #expect(endpoint.authority == "127.0.0.1:8000")
        #expect(endpoint.address.port == 8000)
        #expect(endpoint.prefix == (url.hasSuffix("base/") ? "/base" : ""))
    }

    @Test(arguments: [
        "", "127.0.0.1:80", "ftp://127.0.0.1", "https://", "http://u:p@127.0.0.1", "http://127.0.0.1?a", "http://[::1", "http://[::1]x",
        "http://", "http://:80", "http://127.0.0.1:99999", "http://127.0.0.1:x", "http://a:1:2",
    ])
    func noEndpoints(url: String) {
        #expect(throws: PlanError.self) { try HTTPEndpoint(url) }
    }

    @Test func portsAreTheSchemesOwn() throws {
        #expect(try HTTPEndpoint("https://127.0.0.1/shop").address.port == 443)
        #expect(try HTTPEndpoint("https://127.0.0.1/shop").tls?.serverName == nil, "an address is no name to ask for")
        #expect(try HTTPEndpoint("https://localhost").tls?.serverName == "localhost")
        #expect(try HTTPEndpoint("http://127.0.0.1").address.port == 80)
        let six = try HTTPEndpoint("http://[::1]:8000")
        #expect(six.address.port == 8000 && six.authority == "[::1]:8000" && six.tls == nil)
    }

    @Test(arguments: ["Authorization: Bearer x", "X-A:b", "x_y: "])
    func headers(text: String) throws {
        let field = try HeaderField(text)
        #expect(text.hasPrefix(field.name + ":") && !field.value.hasPrefix(" "))
    }

    @Test(arguments: ["", "no colon", ": x", "a b: c", "Host: x", "idempotency-key: 1", "X: a\r\nY: b", "X: a\u{0}"])
    func noHeaders(text: String) {
        let error = #expect(throws: PlanError.self) { try HeaderField(text) }
        #expect(error?.description.contains("Y: b") == false)
    }
}
