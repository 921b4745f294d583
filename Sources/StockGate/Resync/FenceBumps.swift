import BlockingThreads
import PostgresClient
import Synchronization

/// Raises the fences of products whose apply was lost. Losses of one product share one statement, which is tried until it succeeds or the engine shuts down.
///
/// Bounds: one task for each product with a lost apply. Callers that wait are bounded by the requests in flight.
final class FenceBumps: Sendable {
    private static let backoff = Backoff(minimum: .milliseconds(10), maximum: .seconds(1))

    private let ledger: PostgresLedger
    private let events: EventLog
    private let inFlight: InFlight
    private let waiting = Mutex<[ProductID: [@Sendable () -> Void]]>([:])

    init(ledger: PostgresLedger, events: EventLog, inFlight: InFlight) {
        self.ledger = ledger
        self.events = events
        self.inFlight = inFlight
    }

    /// Raises a product's fence; `done` is called once it is raised.
    func raise(_ id: ProductID, _ done: @escaping @Sendable () -> Void) {
        let isFirst = waiting.withLock { waiting in
            waiting[id, default: []].append(done)
            return waiting[id]?.count == 1
        }
        if isFirst { Task { await raise(id) } }
    }

    private func raise(_ id: ProductID) async {
        var failures = 0
        while !inFlight.isShutDown {
            await ledger.untilFree(id)
            // Only callers that came before the statement began are served by it. A later one lost its apply later, and needs a bump after that: the next
            // statement.
            let served = waiting.withLock { $0[id] ?? [] }
            do throws(PostgresError) {
                _ = try await ledger.bump([id])
                let isDone = waiting.withLock { waiting in
                    waiting[id]?.removeFirst(served.count)
                    if waiting[id]?.isEmpty ?? true { waiting[id] = nil }
                    return waiting[id] == nil
                }
                events.isOver(.fence(id))
                for done in served { done() }
                if isDone { return }
                failures = 0
            } catch {
                if error.isLockTimeout { ledger.lockedProducts.found([id.rawValue]) }
                events.say("\(error)", of: .fence(id), .trouble("fence of product \(id) not raised: \(error)"))
                try? await Task.sleep(for: Self.backoff.wholeWait(after: failures))
                failures += 1
            }
        }
    }
}
