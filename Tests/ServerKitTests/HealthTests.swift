import Eventually
import Hummingbird
import HummingbirdTesting
import ServerMetrics
import StrictJSON
import Synchronization
import Testing

@testable import ServerKit

@Suite struct HealthTests {
    private func answers(_ checks: [HealthCheck]) async throws -> (live: Int, ready: Int, verbose: String) {
        let router = ServerRouter(metrics: HTTPMetrics(registry: MetricsRegistry()))
        HealthRoutes(checks: checks).register(on: router)
        return try await Application(responder: router.buildResponder()).test(.router) { client in
            let verbose = try await client.execute(uri: "/readyz?verbose", method: .get)
            return (
                Int(try await client.execute(uri: "/livez", method: .get).status.code),
                Int(try await client.execute(uri: "/readyz", method: .get).status.code),
                String(buffer: verbose.body)
            )
        }
    }

    @Test func degradedIsReady() async throws {
        let (live, ready, verbose) = try await answers([
            HealthCheck("postgres") { HealthReport(.up) },
            HealthCheck("redis") { HealthReport(.degraded, detail: ["breaker": "OPEN"]) },
        ])
        #expect(live == 200 && ready == 200)
        #expect(
            verbose
                == #"{"status":"UP","dependencies":{"postgres":{"state":"UP","detail":null},"redis":{"state":"DEGRADED","detail":{"breaker":"OPEN"}}}}"#
        )
    }

    @Test func downIsNotReadyButLive() async throws {
        let (live, ready, verbose) = try await answers([HealthCheck("postgres") { HealthReport(.down) }])
        #expect(live == 200 && ready == 503)
        #expect(verbose.contains(#""error":"UNAVAILABLE""#) && verbose.contains(#""postgres":{"state":"DOWN""#))
    }

    /// Two that route to a server ask at the same moment: the second is not told that it is down because of the first.
    @Test func whoComesWhileACheckIsOutSharesItsAnswer() async throws {
        let asked = Atomic<Int>(0)
        let (released, release) = AsyncStream.makeStream(of: Void.self)
        let check = HealthCheck("slow", timeout: .seconds(600)) {
            asked.wrappingAdd(1, ordering: .relaxed)
            for await _ in released { break }
            return HealthReport(.up)
        }
        let reports = (0..<3).map { _ in Task { await check.report() } }
        #expect(try await eventually(every: .milliseconds(1)) { check.waiting == 3 })
        release.finish()
        for report in reports { #expect(await report.value.state == .up) }
        #expect(asked.load(ordering: .relaxed) == 1)
        #expect(await check.report().state == .up, "the next one asks again")
        #expect(asked.load(ordering: .relaxed) == 2)
    }

    @Test func aCheckThatAnswersAfterItsTimeIsAskedAgain() async throws {
        let asked = Atomic<Int>(0)
        let (released, release) = AsyncStream.makeStream(of: Void.self)
        let check = HealthCheck("slow", timeout: .milliseconds(20)) {
            asked.wrappingAdd(1, ordering: .relaxed)
            await Task.detached { for await _ in released { break } }.value
            return HealthReport(.up)
        }
        #expect(await check.report().state == .down)
        release.finish()
        // With one core there is one thread for all tasks, and an answer that is given at once does not leave it to the check.
        #expect(try await eventually(every: .milliseconds(1)) { await check.report().state == .up })
        #expect(asked.load(ordering: .relaxed) >= 2)
    }

    @Test func aCheckThatHangsIsBoundedAndNotAskedAgain() async throws {
        let asked = Atomic<Int>(0)
        let hanging = HealthCheck("slow", timeout: .milliseconds(20)) {
            asked.wrappingAdd(1, ordering: .relaxed)
            // Ignores its cancellation, as a blocking driver does.
            await Task.detached { try? await Task.sleep(for: .seconds(60)) }.value
            return HealthReport(.up)
        }
        let start = ContinuousClock.now
        // A busy machine may begin it after its bound.
        while asked.load(ordering: .relaxed) == 0 {
            #expect(await hanging.report().state == .down)
            await Task.yield()
        }
        for _ in 0..<3 { #expect(await hanging.report().state == .down) }
        #expect(ContinuousClock.now - start < .seconds(30))
        #expect(asked.load(ordering: .relaxed) == 1)
    }
}
