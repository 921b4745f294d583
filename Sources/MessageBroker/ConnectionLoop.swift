// The life of a connection's thread: connect, declare, serve, pause, and again.
//
// Invariant: a role sees `ready` before any event of a connection, and `ended` after the last one. Between two attempts no connection is held.
// Bounds: an attempt takes at most twice the connect timeout, and a call timeout for each declaration. Where the broker has several addresses, the next one is
//   tried at once, and each of them once before a pause; pauses are those of the back-off. A turn reads at most one buffer, so that writing and deadlines get
//   their turn too.
// Stop: `stop`. Work that is under way may finish until the deadline of `stop`.

import BlockingThreads

/// What a publisher or a consumer does with its connection. A role lives on the connection's thread.
protocol ConnectionRole: AnyObject {
    /// Sets up a new connection after the topology was declared.
    func prepare(_ connection: AMQPConnection) throws(BrokerError)
    /// The connection is in use from now on.
    func ready()
    /// Moves waiting work into the connection's buffer.
    /// - Returns: when the role wants its next turn if no event comes before
    func turn(_ connection: AMQPConnection, now: ContinuousClock.Instant) throws(BrokerError) -> ContinuousClock.Instant?
    func received(_ event: AMQPConnection.Event) throws(BrokerError)
    /// Called after everything that was read has been passed to `received`.
    func endOfInput() throws(BrokerError)
    /// The connection has ended, or the attempt has failed.
    func ended(_ failure: BrokerError, retryAt: ContinuousClock.Instant?)
    /// Whether no work is under way.
    var isDrained: Bool { get }
    /// Whether a new connection must take the place of this one, although this one works.
    var mustReplaceConnection: Bool { get }
}

extension ConnectionRole {
    var mustReplaceConnection: Bool { false }
}

/// What a connection's thread and its owner share.
final class ConnectionControl: Sendable {
    struct Status: Sendable {
        var snapshot = BrokerSnapshot()
        /// If set, the thread ends by then at the latest.
        var stopAt: ContinuousClock.Instant?
        var isEnded = false
    }

    let status = AsyncMonitor(Status())
    let wake: WakeDescriptor
    /// Called with every change, on the connection's thread.
    let onChange: @Sendable (ConnectionChange) -> Void

    init(onChange: @escaping @Sendable (ConnectionChange) -> Void) throws(BrokerError) {
        wake = try ThreadUnavailable.translated(by: BrokerError.init) { () throws(ThreadUnavailable) in try WakeDescriptor() }
        self.onChange = onChange
    }

    /// Lets the thread end once its work is done, or at the latest at this time.
    func stop(at end: ContinuousClock.Instant) {
        status.update { $0.stopAt = min($0.stopAt ?? end, end) }
        wake.signal()
    }

    /// Returns when the thread has ended, or after `bound` if it is still in a call of the library. Then it ends after that call.
    func shutdown(within bound: Duration) async {
        let end = ContinuousClock.now + bound
        stop(at: end)
        // A little longer than the bound, so that outcomes which are given up at the end are still reported.
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
            change(&status.snapshot)
        }
    }
}

/// Runs on the connection's thread, and returns when it was stopped.
struct ConnectionLoop<Role: ConnectionRole> {
    let configuration: BrokerConfiguration
    let topology: Topology
    let control: ConnectionControl
    let role: Role

    func run() {
        var backoff = ReconnectBackoff(minimum: configuration.minimumBackoff, maximum: configuration.maximumBackoff)
        var rounds = AddressRounds(count: configuration.addresses.count)
        var random = SystemRandomNumberGenerator()
        // The refusal that this round has met, which says more than the failure of a node that is away. Of several refusals the first by its text is kept: the next
        // round asks the nodes in another order, and must report the same one.
        var refusal: BrokerError?
        // Whether the connection before was replaced while it worked. The next one is then not reported as connected: nothing was reported as lost.
        var isReplacement = false
        while stopAt == nil {
            let address = configuration.addresses[rounds.next(using: &random)]
            control.enter(.connecting) { $0.address = address }
            var readyAt: ContinuousClock.Instant?
            do throws(BrokerError) {
                let connection = try AMQPConnection(configuration, at: address)
                try connection.declare(topology)
                try role.prepare(connection)
                connection.beginServing()
                readyAt = .now
                refusal = nil
                backoff.connected(at: .now)
                role.ready()
                control.enter(.connected) { $0.connects += 1 }
                if !isReplacement {
                    if configuration.addresses.count > 1 { control.onChange(.reached(address)) }
                    control.onChange(.connected)
                }
                isReplacement = try serve(connection) == .mustReplace
                connection.close(within: min(.seconds(1), (stopAt ?? .now + .seconds(1)) - .now))
                if isReplacement {
                    // Another address is tried next, if there is one. A failure there is reported as any other.
                    _ = rounds.failed(wasProven: true)
                    role.ended(BrokerError(code: .notConnected, message: "the connection is being replaced"), retryAt: .now)
                    control.enter(.connecting) { $0.replacements += 1 }
                }
            } catch {
                isReplacement = false
                let now = ContinuousClock.now
                let isProven = readyAt.map { now - $0 >= configuration.maximumBackoff } ?? false
                let step = rounds.failed(wasProven: isProven)
                if error.isRefusal, error.message <= refusal?.message ?? error.message { refusal = error }
                var wait = Duration.zero
                if step == .pause { wait = backoff.failed(at: now, random: Double.random(in: 0...1)) }
                let retryAt = now + wait
                role.ended(error, retryAt: retryAt)
                let told = step == .pause ? refusal ?? error : error
                control.enter(.backingOff(retryAt: retryAt)) { snapshot in
                    // A permanent failure is reported only after every address has been tried.
                    if step == .pause || !told.isPermanent { snapshot.lastFailure = told }
                    if readyAt == nil { snapshot.failedConnects += 1 }
                }
                guard step == .pause else { continue }
                refusal = nil
                if stopAt == nil { control.onChange(.failed(told)) }
                while stopAt == nil, ContinuousClock.now < retryAt { control.wake.sleep(until: retryAt) }
            }
        }
        role.ended(BrokerError(code: .closed, message: "it was closed"), retryAt: nil)
        control.enter(.closed)
        control.status.update { $0.isEnded = true }
    }

    private var stopAt: ContinuousClock.Instant? { control.status.withLock { $0.stopAt } }

    /// Why a connection that works is served no longer.
    private enum End {
        /// The loop was stopped, and no work is under way or the time for it is over.
        case stopped
        /// The role wants a new connection.
        case mustReplace
    }

    /// Serves one connection, until it is no use any more.
    private func serve(_ connection: AMQPConnection) throws(BrokerError) -> End {
        while true {
            let now = ContinuousClock.now
            let wanted = try role.turn(connection, now: now)
            try connection.flush()
            let stopAt = stopAt
            if let stopAt, now >= stopAt || (role.isDrained && connection.unwritten == 0) { return .stopped }
            if role.mustReplaceConnection { return .mustReplace }
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
