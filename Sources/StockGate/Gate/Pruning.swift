// Finds products in Redis that nobody gates any more, by the names of their marks.
//
// Bounds: `maximumSteps` steps of SCAN a call, each of about `stepSize` keys of the server, ours or not. Stop: the cursor is back at its beginning, the
//   steps are used up, or the time is over; the next call goes on where this one stopped.

import RedisClient
import Synchronization

final class Pruning: Sendable {
    static let maximumSteps = 200
    static let stepSize: Int64 = 1000

    private struct State: Sendable {
        var cursor = "0"
        var told: String?
    }
    private let state = Mutex(State())

    /// Whether this was not said before.
    func isNews(_ error: RedisError) -> Bool {
        let text = String(describing: error)
        return state.withLock { state in
            defer { state.told = text }
            return state.told != text
        }
    }

    /// Goes on over the names of all keys.
    func scan(
        _ redis: RedisClient,
        until end: ContinuousClock.Instant? = nil,
        found: ([ProductID]) async -> Void
    ) async throws(RedisError) {
        for _ in 0..<Self.maximumSteps {
            if Task.isCancelled || end.map({ ContinuousClock.now >= $0 }) ?? false { return }
            let cursor = state.withLock { $0.cursor }
            let reply = try await redis.send(
                RedisCommand("SCAN", .string(cursor), "MATCH", .string(GateKeys.marksPattern), "COUNT", .integer(Self.stepSize))
            )
            guard let parts = reply.array, parts.count == 2, let next = parts[0].string, let names = parts[1].array else {
                throw RedisError(.protocolViolation, detail: "SCAN replied something else")
            }
            state.withLock { $0.cursor = next }
            let products = names.compactMap { $0.string.flatMap(GateKeys.product(ofMarks:)) }
            if !products.isEmpty { await found(products) }
            if next == "0" { return state.withLock { $0.told = nil } }
        }
    }
}
