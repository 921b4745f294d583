// Publishes with confirms over one connection.
//
// Invariant: every message of an accepted batch gets exactly one outcome. Messages are written in the order of acceptance, and none is written twice.
// Bounds: `maximumQueued` messages wait or are in flight; more are refused. `maximumInFlight` messages are written and unanswered. A batch is answered by its
//   deadline (`confirmTimeout`), whatever the broker does.
// Stop: `shutdown`, or the end of the last reference.

import BlockingThreads

/// Publishes messages and reports the outcome of each, for any number of concurrent callers, over one connection and one thread.
public final class Publisher: Sendable {
    private let configuration: BrokerConfiguration
    private let control: ConnectionControl
    private let inbox: PublisherInbox

    /// Starts the thread, which connects and declares the topology. It tries again for ever.
    ///
    /// - Parameters:
    ///   - name: the thread's name, of which the system shows 15 bytes
    ///   - onChange: called with every change of the connection, on its thread
    /// - Throws: only if the system has no thread or descriptor left.
    public init(
        configuration: BrokerConfiguration,
        topology: Topology,
        name: String = "publisher",
        onChange: @escaping @Sendable (ConnectionChange) -> Void = { _ in }
    ) throws(BrokerError) {
        let control = try ConnectionControl(onChange: onChange)
        let inbox = PublisherInbox()
        self.configuration = configuration
        self.control = control
        self.inbox = inbox
        try ThreadUnavailable.translated(by: BrokerError.init) { () throws(ThreadUnavailable) in
            try BlockingThread.start(name: name) {
                let role = PublisherRole(configuration, topology, control, inbox)
                ConnectionLoop(configuration: configuration, topology: topology, control: control, role: role).run()
            }
        }
    }

    deinit { control.stop(at: .now) }

    /// Publishes the messages in their order.
    ///
    /// Takes at most the configuration's `confirmTimeout`. Cancelling the task does not interrupt it, because a message that is written cannot be taken back.
    ///
    /// - Returns: one outcome for each message
    /// - Throws: `notConnected`, `overloaded`, `invalidMessage` or `closed`. Then nothing was sent.
    public func publish(_ messages: [OutgoingMessage]) async throws(BrokerError) -> [PublishOutcome] {
        if messages.isEmpty { return [] }
        for message in messages { try message.validate() }
        let deadline = ContinuousClock.now + configuration.confirmTimeout
        return try await withCheckedContinuation { (continuation: CheckedContinuation<Result<[PublishOutcome], BrokerError>, Never>) in
            let batch = PublishBatch(messages, deadline: deadline, continuation)
            if let refusal = inbox.push(batch, limit: configuration.maximumQueued) {
                continuation.resume(returning: .failure(refusal))
            } else {
                control.wake.signal()
            }
        }.get()
    }

    /// Waits until the publisher is connected and the topology declared.
    ///
    /// - Throws: the last failure: at once if it is permanent (topology, authentication), otherwise when the bound has passed. The thread goes on trying to
    ///   connect.
    public func waitUntilConnected(within bound: Duration) async throws(BrokerError) {
        try await control.waitUntilConnected(within: bound)
    }

    /// The connection's state and the counts.
    public func snapshot() -> BrokerSnapshot {
        var snapshot = control.status.withLock { $0.snapshot }
        snapshot.queued = inbox.count
        return snapshot
    }

    /// Refuses new messages, waits at most `bound` for those under way, and closes the connection. Messages that are left are `unknown` or `unsent`.
    public func shutdown(within bound: Duration = .seconds(5)) async {
        inbox.close()
        await control.shutdown(within: bound)
    }
}
