import Synchronization

/// Somebody wants the sale to end now: no more orders, what was taken away is given back, what was measured is told and audited.
public final class Interruption: Sendable {
    private let flag = Mutex(false)

    /// Nobody interrupts yet.
    public init() {}

    /// Whether somebody has interrupted the sale.
    public var isSet: Bool { flag.withLock { $0 } }

    /// Ends the sale. Returns whether this was the first time.
    @discardableResult
    public func interrupt() -> Bool {
        flag.withLock { flag in
            defer { flag = true }
            return !flag
        }
    }

    /// Returns when somebody interrupts.
    /// - Throws: `CancellationError` when the task is cancelled before.
    func wait() async throws {
        while !isSet { try await Task.sleep(for: .milliseconds(50)) }
    }
}
