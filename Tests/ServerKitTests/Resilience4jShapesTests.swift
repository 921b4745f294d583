import CircuitBreaker
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import ServerMetrics
import NIOCore
import Synchronization
import Testing

@testable import ServerKit

/// Whole bodies under `/actuator`, as resilience4j's endpoints write them.
@Suite struct Resilience4jShapesTests {
    /// A clock that stands still until it is moved.
    private final class StillClock: CircuitBreakerClock {
        private let nanoseconds = Atomic<Int64>(0)

        func now() -> CircuitBreakerInstant { CircuitBreakerInstant(nanoseconds: nanoseconds.load(ordering: .relaxed)) }
        func sleep(until instant: CircuitBreakerInstant) async throws { try await Task.sleep(for: .seconds(3_600)) }
        func move(by milliseconds: Int64) { nanoseconds.add(milliseconds * 1_000_000, ordering: .relaxed) }
    }

    private final class Lines: Sendable {
        let text = Mutex("")
    }

    private let clock = StillClock()
    private let breakers = CircuitBreakerRegistry()
    private let lines = Lines()
    private let headers: HTTPFields = [.authorization: "Bearer 1234"]
    /// 2017-01-10T14:39:17.117Z, plus what the clock was moved by.
    private static let began: Int64 = 1_484_059_157_117

    @discardableResult
    private func breaker(_ name: String, startsInRecovery: Bool = false, gate: (@Sendable () async throws -> Void)? = nil) throws
        -> CircuitBreaker
    {
        let breaker = CircuitBreaker(
            name: name,
            configuration: try CircuitBreakerConfiguration {
                $0.minimumNumberOfCalls = 3
                $0.window = .count(10)
                $0.slowCallDurationThreshold = .seconds(2)
                $0.failureRateThreshold = 60
                $0.rejectionEventInterval = .seconds(1)
            },
            clock: clock,
            wallClock: { [clock] in Self.began + clock.now().nanoseconds / 1_000_000 },
            startsInRecovery: startsInRecovery,
            recovery: gate
        )
        try breakers.add(breaker)
        return breaker
    }

    private func application() throws -> some ApplicationProtocol {
        let router = ServerRouter(metrics: HTTPMetrics(registry: MetricsRegistry()))
        router.add(middleware: AdminGuard(tokens: try #require(AdminTokens("ann:1234,bob:5678"))))
        CircuitBreakerRoutes(registry: breakers).register(on: router)
        let logger = Logger(label: "test") { [lines] label in
            ServerLogHandler(label: label, level: .info, format: .json) { line in
                lines.text.withLock { $0 += String(decoding: line, as: UTF8.self) }
            }
        }
        return Application(responder: router.buildResponder(), logger: logger)
    }

    private func call(_ breaker: CircuitBreaker, _ outcome: CallOutcome, took milliseconds: Int64) {
        guard case .permitted(let permit) = breaker.admit() else { return }
        clock.move(by: milliseconds)
        breaker.record(outcome, for: permit)
    }

    @Test func states() async throws {
        let second = try breaker("backendB")
        try breaker("backendA")
        try await application().test(.router) { client in
            let none = try await client.execute(uri: "/actuator/circuitbreakers", method: .get, headers: headers)
            let empty =
                #"{"failureRate":"-1.0%","slowCallRate":"-1.0%","failureRateThreshold":"60.0%","slowCallRateThreshold":"100.0%","bufferedCalls":0,"failedCalls":0,"slowCalls":0,"slowFailedCalls":0,"notPermittedCalls":0,"state":"CLOSED"}"#
            #expect(String(buffer: none.body) == #"{"circuitBreakers":{"backendA":\#(empty),"backendB":\#(empty)}}"#)

            call(second, .success, took: 1)
            call(second, .success, took: 2_500)
            call(second, .failure("java.net.ConnectException: Connection refused"), took: 2_500)
            let some = try await client.execute(uri: "/actuator/circuitbreakers/backendB", method: .get, headers: headers)
            #expect(
                String(buffer: some.body)
                    == #"{"circuitBreakers":{"backendB":{"failureRate":"33.333332%","slowCallRate":"66.666664%","failureRateThreshold":"60.0%","slowCallRateThreshold":"100.0%","bufferedCalls":3,"failedCalls":1,"slowCalls":2,"slowFailedCalls":1,"notPermittedCalls":0,"state":"CLOSED"}}}"#
            )
            #expect(some.headers[.contentType] == "application/json")
        }
    }

    @Test(
        arguments: [
            (nil, "-1.0%"), (0, "0.0%"), (100, "100.0%"), (50, "50.0%"), (100.0 / 3, "33.333332%"), (200.0 / 3, "66.666664%"),
            (12.5, "12.5%"),
            (100.0 / 7, "14.285714%"), (0.001, "0.001%"), (0.0001, "1.0E-4%"), (0.0003, "3.0E-4%"), (0.00025, "2.5E-4%"),
        ] as [(Double?, String)]
    )
    func ratesAreJavaFloats(rate: Double?, text: String) {
        #expect(Resilience4j.percent(rate) == text)
    }

    @Test(
        arguments: [
            (1_484_059_157_117, "2017-01-10T14:39:17.117Z[UTC]"), (1_484_059_157_100, "2017-01-10T14:39:17.100Z[UTC]"),
            (1_484_059_157_000, "2017-01-10T14:39:17Z[UTC]"), (1_484_059_140_000, "2017-01-10T14:39Z[UTC]"),
            (1_484_006_400_000, "2017-01-10T00:00Z[UTC]"),
        ] as [(Int64, String)]
    )
    func timesAreJavaZonedDateTimes(unixMilliseconds: Int64, text: String) {
        #expect(Resilience4j.time(unixMilliseconds: unixMilliseconds) == text)
    }

    @Test func events() async throws {
        let first = try breaker("backendA")
        let second = try breaker("backendB")
        call(first, .failure("timeout"), took: 3)
        call(second, .failure("refused"), took: 20)
        for _ in 1...2 { call(second, .failure("refused"), took: 2_001) }
        clock.move(by: 1_000)
        #expect(second.state == .open)
        _ = second.admit()
        func error(_ name: String, _ time: String, _ message: String, _ took: Int) -> String {
            #"{"circuitBreakerName":"\#(name)","type":"ERROR","creationTime":"2017-01-10T14:39:\#(time)Z[UTC]","errorMessage":"\#(message)","durationInMs":\#(took),"stateTransition":null}"#
        }
        let ofFirst = [error("backendA", "17.120", "timeout", 3)]
        let opened =
            #"{"circuitBreakerName":"backendB","type":"STATE_TRANSITION","creationTime":"2017-01-10T14:39:21.142Z[UTC]","errorMessage":null,"durationInMs":null,"stateTransition":"CLOSED_TO_OPEN"}"#
        let rejected =
            #"{"circuitBreakerName":"backendB","type":"NOT_PERMITTED","creationTime":"2017-01-10T14:39:22.142Z[UTC]","errorMessage":null,"durationInMs":null,"stateTransition":null}"#
        let ofSecond = [
            error("backendB", "17.140", "refused", 20), error("backendB", "19.141", "refused", 2_001),
            error("backendB", "21.142", "refused", 2_001),
        ]
        try await application().test(.router) { client in
            func get(_ path: String) async throws -> String {
                String(buffer: try await client.execute(uri: "/actuator/circuitbreakerevents\(path)", method: .get, headers: headers).body)
            }
            func body(_ events: [String]) -> String { "{\"circuitBreakerEvents\":[\(events.joined(separator: ","))]}" }
            #expect(try await get("") == body(ofFirst + ofSecond + [opened, rejected]))
            #expect(try await get("/backendB") == body(ofSecond + [opened, rejected]))
            #expect(try await get("/backendB/ERROR") == body(ofSecond))
            #expect(try await get("/backendB/state_transition") == body([opened]))
            #expect(try await get("/backendB/SUCCESS") == body([]))
            #expect(try await get("/nobody") == body([]))
            #expect(try await get("/nobody/ERROR") == body([]))
            let unknown = try await client.execute(uri: "/actuator/circuitbreakerevents/backendB/NO_TYPE", method: .get, headers: headers)
            #expect(unknown.status == .badRequest)
            // What resilience4j has no name for is under /admin alone.
            let ours = String(
                buffer: try await client.execute(uri: "/admin/circuitbreakerevents/backendB", method: .get, headers: headers).body
            )
            #expect(ours.contains("SLOW_CALL"))
            #expect(try await client.execute(uri: "/admin/circuitbreakerevents/nobody", method: .get, headers: headers).status == .notFound)
        }
    }

    @Test func changesByHand() async throws {
        try breaker("backendA")
        try await application().test(.router) { client in
            func post(_ update: String, _ headers: HTTPFields) async throws -> TestResponse {
                try await client.execute(
                    uri: "/actuator/circuitbreakers/backendA",
                    method: .post,
                    headers: headers,
                    body: ByteBuffer(string: "{\"updateState\":\"\(update)\"}")
                )
            }
            for (update, state) in [("FORCE_OPEN", "FORCED_OPEN"), ("DISABLE", "DISABLED"), ("CLOSE", "CLOSED")] {
                var headers = headers
                headers[.contentType] = "application/vnd.spring-boot.actuator.v3+json"
                let answer = try await post(update, headers)
                #expect(
                    String(buffer: answer.body)
                        == "{\"circuitBreakerName\":\"backendA\",\"currentState\":\"\(state)\",\"message\":\"backendA state has been changed successfully\"}"
                )
            }
            #expect(try await post("SOMETHING", headers).status == .badRequest)
        }
    }

    /// Without a token 401, with a wrong one 403, and nothing has changed; with one, the log and the event say who and why.
    @Test(arguments: ["/admin", "/actuator"])
    func changesByHandNeedATokenAndLeaveATrace(prefix: String) async throws {
        let breaker = try breaker("backendA")
        try await application().test(.router) { client in
            func post(_ body: String, _ token: String?) async throws -> HTTPResponse.Status {
                var headers = HTTPFields()
                headers[.authorization] = token.map { "Bearer \($0)" }
                return try await client.execute(
                    uri: "\(prefix)/circuitbreakers/backendA",
                    method: .post,
                    headers: headers,
                    body: ByteBuffer(string: body)
                ).status
            }
            let forced = #"{"updateState":"FORCE_OPEN","reason":"maintenance of Redis"}"#
            #expect(try await post(forced, nil) == .unauthorized)
            #expect(try await post(forced, "9999") == .forbidden)
            #expect(breaker.state == .closed && breaker.recentEvents().isEmpty)
            #expect(try await post(forced, "5678") == .ok)
            #expect(try await post(#"{"updateState":"RESET"}"#, "1234") == .ok)
            let log = lines.text.withLock { $0 }
            for part in [#""by":"bob""#, #""reason":"maintenance of Redis""#, #""from":"CLOSED""#, #""to":"FORCED_OPEN""#, #""by":"ann""#] {
                #expect(log.contains(part), "\(part) in \(log)")
            }
            #expect(!log.contains("5678") && !log.contains("1234"))
            let events = try await client.execute(uri: "/admin/circuitbreakerevents", method: .get, headers: headers)
            #expect(
                String(buffer: events.body)
                    == #"{"circuitBreakerEvents":[{"circuitBreakerName":"backendA","type":"STATE_TRANSITION","creationTime":"2017-01-10T14:39:17.117000Z","errorMessage":null,"durationInMs":null,"stateTransition":"CLOSED_TO_FORCED_OPEN","reason":"by hand (bob): maintenance of Redis","count":null,"sequence":1},{"circuitBreakerName":"backendA","type":"RESET","creationTime":"2017-01-10T14:39:17.117000Z","errorMessage":null,"durationInMs":null,"stateTransition":null,"reason":"ann","count":null,"sequence":2},{"circuitBreakerName":"backendA","type":"STATE_TRANSITION","creationTime":"2017-01-10T14:39:17.117000Z","errorMessage":null,"durationInMs":null,"stateTransition":"FORCED_OPEN_TO_CLOSED","reason":"by hand (ann)","count":null,"sequence":3}]}"#
            )
        }
    }

    /// A breaker of a server that has just been started says that it waits for its gate; resilience4j has no name for that change.
    @Test func theStartBehindTheGateIsAnEvent() async throws {
        let (opens, open) = AsyncStream<Void>.makeStream()
        let breaker = try breaker("backendA", startsInRecovery: true) { for await _ in opens { return } }
        var readers = breaker.events.makeAsyncIterator()
        #expect(breaker.state == .halfOpen)
        open.yield()
        while let event = await readers.next() {
            if case .transition(_, .closed, _) = event.kind { break }
        }
        try await application().test(.router) { client in
            let ours = String(
                buffer: try await client.execute(uri: "/admin/circuitbreakerevents", method: .get, headers: headers).body
            )
            #expect(ours.contains(#""stateTransition":"CLOSED_TO_HALF_OPEN","reason":"start-up""#), "\(ours)")
            #expect(ours.contains(#""stateTransition":"HALF_OPEN_TO_CLOSED","reason":"recovery gate passed""#), "\(ours)")
            let theirs = try await client.execute(uri: "/actuator/circuitbreakerevents", method: .get, headers: headers)
            #expect(
                String(buffer: theirs.body)
                    == #"{"circuitBreakerEvents":[{"circuitBreakerName":"backendA","type":"STATE_TRANSITION","creationTime":"2017-01-10T14:39:17.117Z[UTC]","errorMessage":null,"durationInMs":null,"stateTransition":"HALF_OPEN_TO_CLOSED"}]}"#
            )
        }
    }

    /// The names, labels and types that resilience4j's Grafana dashboard asks for.
    @Test func metrics() throws {
        let metrics = MetricsRegistry()
        let breaker = try breaker("backendA")
        CircuitBreakerMetrics.register(breakers, in: metrics, resilience4j: true)
        call(breaker, .success, took: 2_500)
        for _ in 1...2 { call(breaker, .failure("timeout"), took: 1) }
        _ = breaker.admit()
        let text = String(decoding: metrics.exposition(), as: UTF8.self)
        let lines = text.split(separator: "\n").filter { $0.contains(" resilience4j_") || $0.hasPrefix("resilience4j_") }.filter {
            !$0.hasPrefix("# HELP")
        }
        #expect(
            lines.joined(separator: "\n") == """
                # TYPE resilience4j_circuitbreaker_state gauge
                resilience4j_circuitbreaker_state{name="backendA",state="closed"} 0
                resilience4j_circuitbreaker_state{name="backendA",state="open"} 1
                resilience4j_circuitbreaker_state{name="backendA",state="half_open"} 0
                resilience4j_circuitbreaker_state{name="backendA",state="disabled"} 0
                resilience4j_circuitbreaker_state{name="backendA",state="forced_open"} 0
                resilience4j_circuitbreaker_state{name="backendA",state="metrics_only"} 0
                # TYPE resilience4j_circuitbreaker_failure_rate gauge
                resilience4j_circuitbreaker_failure_rate{name="backendA"} 66.666666666667
                # TYPE resilience4j_circuitbreaker_slow_call_rate gauge
                resilience4j_circuitbreaker_slow_call_rate{name="backendA"} 33.333333333333
                # TYPE resilience4j_circuitbreaker_buffered_calls gauge
                resilience4j_circuitbreaker_buffered_calls{name="backendA",kind="successful"} 1
                resilience4j_circuitbreaker_buffered_calls{name="backendA",kind="failed"} 2
                # TYPE resilience4j_circuitbreaker_slow_calls gauge
                resilience4j_circuitbreaker_slow_calls{name="backendA",kind="successful"} 1
                resilience4j_circuitbreaker_slow_calls{name="backendA",kind="failed"} 0
                # TYPE resilience4j_circuitbreaker_not_permitted_calls_total counter
                resilience4j_circuitbreaker_not_permitted_calls_total{name="backendA",kind="not_permitted"} 1
                # TYPE resilience4j_circuitbreaker_calls_seconds_count counter
                resilience4j_circuitbreaker_calls_seconds_count{name="backendA",kind="successful"} 1
                resilience4j_circuitbreaker_calls_seconds_count{name="backendA",kind="failed"} 2
                resilience4j_circuitbreaker_calls_seconds_count{name="backendA",kind="ignored"} 0
                # TYPE resilience4j_circuitbreaker_calls_seconds_sum counter
                resilience4j_circuitbreaker_calls_seconds_sum{name="backendA",kind="successful"} 2.5
                resilience4j_circuitbreaker_calls_seconds_sum{name="backendA",kind="failed"} 0.002
                """
        )
    }
}
