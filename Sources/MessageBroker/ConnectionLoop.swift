// The life of a connection's thread: connect, declare, serve, wait, again.
//
// Invariant: a role sees `ready` before any event of a connection and `ended` after the last; between attempts nothing is held.
// Bounds: an attempt takes at most the connect timeout twice and a call timeout per declaration; waits between attempts are those of `ReconnectBackoff`; one read
// per turn takes at most one buffer, so that writing and deadlines get their turn.
// Stop: `stop`. What is under way may finish until its deadline.

import BlockingThreads

/// What a publisher or a consumer does with its connection. Lives on the connection's thread.
protocol ConnectionRole: AnyObject {
    /// Sets up a new connection, whose topology is declared.
    func prepare(_ connection: AMQPConnection) throws(BrokerError)
    /// The connection is in use from now on.
    func ready()
    /// Moves what waits into the connection's buffer.
    /// - Returns: when it wants its next turn without an event.
    func turn(_ connection: AMQPConnection, now: ContinuousClock.Instant) throws(BrokerError) -> ContinuousClock.Instant?
    func received(_ event: AMQPConnection.Event) throws(BrokerError)
    /// All that was read has been given to `received`.
    func endOfInput() throws(BrokerError)
    /// The connection or the attempt is over.
    func ended(_ failure: BrokerError, retryAt: ContinuousClock.Instant?)
    /// Nothing is under way.
    var isDrained: Bool { get }
}

/// What a connection's thread and its owner share.
final class ConnectionControl: Sendable {
    struct Status: Sendable {
        var snapshot = BrokerSnapshot()
        /// Set: the thread is to end, at the latest then.
        var stopAt: ContinuousClock.Instant?
        var isEnded = false
    }

    let status = AsyncMonitor(Status())
    let wake: WakeDescriptor
    /// Hears of every change, on the connection's thread.
    let onChange: @Sendable (ConnectionChange) -> Void

    init(onChange: @escaping @Sendable (ConnectionChange) -> Void) throws(BrokerError) {
        wake = try ThreadUnavailable.translated(by: BrokerError.init) { () throws(ThreadUnavailable) in try WakeDescriptor() }
        self.onChange = onChange
    }

    /// Lets the thread end, when what is under way is done or the time has come.
    func stop(at end: ContinuousClock.Instant) {
        status.update { $0.stopAt = min($0.stopAt ?? end, end) }
        wake.signal()
    }

    /// Returns when the thread has ended, or after the bound: then it still is in a call of the library, and ends after that.
    func close(within bound: Duration) async {
        let end = ContinuousClock.now + bound
        stop(at: end)
        // A little more, so that what is given up at the end is told.
        _ = await status.wait(until: end + .milliseconds(250)) { $0.isEnded ? true : nil }
    }

    func waitUntilConnected(within bound: Duration) async throws(BrokerError) {
        let result = await status.wait(until: .now + bound) { status -> Result<Void, BrokerError>? in
            if status.stopAt != nil { return .failure(BrokerError(code: .closed, message: "it was closed")) }
            if status.snapshot.isConnected { return .success(()) }
            if let failure = status.snapshot.lastFailure, failure.isPermanent { return .failure(failure) }
            return nil
        }
        if let result { return try result.get() }
        throw status.withLock { $0.snapshot.lastFailure } ?? BrokerError(code: .timedOut, message: "not connected within \(bound)")
    }

    func enter(_ state: BrokerSnapshot.State, _ change: (inout BrokerSnapshot) -> Void = { _ in }) {
        status.update { status in
            status.snapshot.state = state
            status.snapshot.stateSince = .now
            change(&status.snapshot)
        }
    }
}

/// Runs on the connection's thread and returns when it was stopped.
struct ConnectionLoop<Role: ConnectionRole> {
    let configuration: BrokerConfiguration
    let topology: Topology
    let control: ConnectionControl
    let role: Role

    func run() {
        var backoff = ReconnectBackoff(minimum: configuration.minimumBackoff, maximum: configuration.maximumBackoff)
        while stopAt == nil {
            control.enter(.connecting)
            var wasReady = false
            do throws(BrokerError) {
                let connection = try AMQPConnection(configuration)
                try connection.declare(topology)
                try role.prepare(connection)
                connection.beginServing()
                wasReady = true
                backoff.connected(at: .now)
                role.ready()
                control.enter(.connected) { $0.connects += 1 }
                control.onChange(.connected)
                try serve(connection)
                connection.close(within: min(.seconds(1), (stopAt ?? .now) - .now))
            } catch {
                let wait = backoff.failed(at: .now, random: Double.random(in: 0...1))
                let retryAt = ContinuousClock.now + wait
                role.ended(error, retryAt: retryAt)
                control.enter(.backingOff(retryAt: retryAt)) { snapshot in
                    snapshot.lastFailure = error
                    if !wasReady { snapshot.failedConnects += 1 }
                }
                if stopAt == nil { control.onChange(.failed(error)) }
                while stopAt == nil, ContinuousClock.now < retryAt { control.wake.sleep(until: retryAt) }
            }
        }
        role.ended(BrokerError(code: .closed, message: "it was closed"), retryAt: nil)
        control.enter(.closed)
        control.status.update { $0.isEnded = true }
    }

    private var stopAt: ContinuousClock.Instant? { control.status.withLock { $0.stopAt } }

    /// Returns when it was stopped and nothing is under way any more.
    private func serve(_ connection: AMQPConnection) throws(BrokerError) {
        while true {
            let now = ContinuousClock.now
            let wanted = try role.turn(connection, now: now)
            try connection.flush()
            let stopAt = stopAt
            if let stopAt, now >= stopAt || (role.isDrained && connection.unwritten == 0) { return }
            let limit = min(wanted ?? now + .seconds(60), stopAt ?? now + .seconds(60))
            if try connection.wait(until: limit, or: control.wake) {
                try connection.receive { event throws(BrokerError) in
                    switch event {
                    case .blocked(let reason):
                        control.enter(.blocked(reason: reason))
                        control.onChange(.blocked(reason: reason))
                    case .unblocked:
                        control.enter(.connected)
                        control.onChange(.unblocked)
                    default: break
                    }
                    try role.received(event)
                }
                try role.endOfInput()
            }
        }
    }
}
