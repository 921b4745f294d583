import CircuitBreaker
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import ServerMetrics
import NIOCore
import StrictJSON
import Synchronization
import Testing

@testable import ServerKit

@Suite struct CircuitBreakerRoutesTests {
    /// The lines that a logger was given.
    private final class Lines: Sendable {
        let text = Mutex("")
    }

    private let breakers = CircuitBreakerRegistry()
    private let metrics = MetricsRegistry()
    private let lines = Lines()

    private func application() throws -> some ApplicationProtocol {
        try breakers.add(
            CircuitBreaker(
                name: "redisStock",
                configuration: try CircuitBreakerConfiguration {
                    $0.minimumNumberOfCalls = 2
                    $0.window = .count(4)
                }
            )
        )
        let router = ServerRouter(metrics: HTTPMetrics(registry: metrics))
        router.add(middleware: AdminGuard(tokens: try #require(AdminTokens("ann:1234"))))
        CircuitBreakerRoutes(registry: breakers).register(on: router)
        CircuitBreakerMetrics.register(breakers, in: metrics, resilience4j: true)
        let logger = Logger(label: "test") { [lines] label in
            ServerLogHandler(label: label, level: .info, format: .json) { line in
                lines.text.withLock { $0 += String(decoding: line, as: UTF8.self) }
            }
        }
        return Application(responder: router.buildResponder(), logger: logger)
    }

    private let headers: HTTPFields = [.authorization: "Bearer 1234"]

    private func json(_ response: TestResponse) throws -> JSONValue { try JSONDocument(Array(response.body.readableBytesView)).value }

    @Test func statesAndEvents() async throws {
        let prefix = "/admin"
        try await application().test(.router) { client in
            let response = try await client.execute(uri: "\(prefix)/circuitbreakers", method: .get, headers: headers)
            #expect(
                String(buffer: response.body)
                    == #"{"circuitBreakers":{"redisStock":{"state":"CLOSED","failureRate":"-1.0%","slowCallRate":"-1.0%","failureRateThreshold":"50.0%","slowCallRateThreshold":"100.0%","bufferedCalls":0,"failedCalls":0,"slowCalls":0,"slowFailedCalls":0,"notPermittedCalls":0,"openUntil":null}}}"#
            )
            let breaker = try #require(breakers["redisStock"])
            for outcome in [CallOutcome.success, .failure("timeout")] {
                if case .permitted(let permit) = breaker.admit() { breaker.record(outcome, for: permit) }
            }
            let one = try json(await client.execute(uri: "\(prefix)/circuitbreakers/redisStock", method: .get, headers: headers))
            let state = one["circuitBreakers"]?["redisStock"]
            #expect(state?["state"] == "OPEN")
            #expect(state?["failureRate"] == "50.0%")
            #expect(state?["openUntil"] != JSONValue.null)
            let events = try json(await client.execute(uri: "\(prefix)/circuitbreakerevents", method: .get, headers: headers))
            guard case .array(let list)? = events["circuitBreakerEvents"] else {
                Issue.record("no events")
                return
            }
            #expect(list.first?["type"] == "ERROR")
            #expect(list.first?["errorMessage"] == "timeout")
            #expect(list.last?["type"] == "STATE_TRANSITION")
            #expect(list.last?["stateTransition"] == "CLOSED_TO_OPEN")
            #expect(list.last?["circuitBreakerName"] == "redisStock")
        }
    }

    @Test func changesByHandAreDoneAndLogged() async throws {
        try await application().test(.router) { client in
            func post(_ name: String, _ body: String) async throws -> TestResponse {
                try await client.execute(
                    uri: "/admin/circuitbreakers/\(name)",
                    method: .post,
                    headers: headers,
                    body: ByteBuffer(string: body)
                )
            }
            let answer = try await post("redisStock", #"{"updateState":"FORCE_OPEN","reason":"maintenance"}"#)
            #expect(
                String(buffer: answer.body)
                    == #"{"circuitBreakerName":"redisStock","currentState":"FORCED_OPEN","message":"redisStock state has been changed successfully"}"#
            )
            #expect(breakers["redisStock"]?.state == .forcedOpen)
            let log = lines.text.withLock { $0 }
            #expect(log.contains(#""by":"ann""#) && log.contains(#""reason":"maintenance""#) && !log.contains("1234"))
            for (update, state) in [("DISABLE", "DISABLED"), ("METRICS_ONLY", "METRICS_ONLY"), ("CLOSE", "CLOSED"), ("RESET", "CLOSED")] {
                #expect(try json(await post("redisStock", "{\"updateState\":\"\(update)\"}"))["currentState"] == .string(state))
            }
            #expect(try await post("nobody", #"{"updateState":"CLOSE"}"#).status == .notFound)
            #expect(try json(await post("nobody", #"{"updateState":"CLOSE"}"#))["error"] == "NOT_FOUND")
            #expect(try json(await post("redisStock", #"{"updateState":"OPEN"}"#))["error"] == "VALIDATION_ERROR")
            let without = try await client.execute(uri: "/admin/circuitbreakers/redisStock", method: .post, body: ByteBuffer(string: "{}"))
            #expect(without.status == .unauthorized)
            #expect(without.headers[.wwwAuthenticate] == "Bearer")
        }
    }

    @Test func figuresUnderBothNames() async throws {
        try await application().test(.router) { _ in
            let text = String(decoding: metrics.exposition(), as: UTF8.self)
            #expect(text.contains(#"stockgate_circuit_breaker_state{name="redisStock",state="closed"} 1"#))
            #expect(text.contains(#"resilience4j_circuitbreaker_state{name="redisStock",state="half_open"} 0"#))
            #expect(text.contains(#"resilience4j_circuitbreaker_failure_rate{name="redisStock"} -1"#))
            #expect(text.contains(#"resilience4j_circuitbreaker_not_permitted_calls_total{name="redisStock",kind="not_permitted"} 0"#))
        }
    }
}
