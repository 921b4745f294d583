import APIErrors
import Hummingbird
import StrictJSON

/// `/livez` and `/readyz`.
public struct HealthRoutes: Sendable {
    private let checks: [HealthCheck]
    private let drain: ServerDrain

    /// Makes the routes over these dependencies.
    /// - Parameter drain: a server that has begun to stop is not ready
    public init(checks: [HealthCheck], drain: ServerDrain = ServerDrain()) {
        self.checks = checks
        self.drain = drain
    }

    /// Adds `GET /livez`, which asks nobody, and `GET /readyz`, which asks every dependency at once and answers 200 or 503.
    ///
    /// `/readyz?verbose` names each dependency with its state and detail.
    public func register(on router: ServerRouter) {
        router.get("livez") { _, _ in Response.json { $0.object { $0.member("status", "UP") } } }
        router.get("readyz", query: ["verbose"]) { request, _ in try await readiness(verbose: try request.querySwitch("verbose")) }
    }

    /// Every dependency's report, in the order given.
    public func reports() async -> [(name: String, report: HealthReport)] {
        await withTaskGroup(of: (Int, HealthReport).self) { group in
            for (index, check) in checks.enumerated() { group.addTask { (index, await check.report()) } }
            var reports = [HealthReport?](repeating: nil, count: checks.count)
            for await (index, report) in group { reports[index] = report }
            return zip(checks, reports).map { ($0.name, $1 ?? HealthReport(.down)) }
        }
    }

    private func readiness(verbose: Bool) async throws -> Response {
        if drain.isDraining { throw APIError(.unavailable, message: .notReady, details: ["down": ["stopping"]]) }
        let reports = await self.reports()
        let dependencies = JSONValue.object(
            reports.map { name, report in
                JSONMember(name, ["state": .string(report.state.rawValue), "detail": report.detail])
            }
        )
        guard reports.allSatisfy({ $0.report.state != .down }) else {
            let down = JSONValue.array(reports.filter { $0.report.state == .down }.map { .string($0.name) })
            throw APIError(
                .unavailable,
                message: .notReady,
                details: verbose ? ["down": down, "dependencies": dependencies] : ["down": down]
            )
        }
        return .json { json in
            json.object { json in
                json.member("status", "UP")
                if verbose { json.member("dependencies", dependencies) }
            }
        }
    }
}
