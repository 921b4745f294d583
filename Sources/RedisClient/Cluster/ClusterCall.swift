import NIOCore

/// One command on its way through a cluster: where it is sent first, and where to after a reply that redirects it. No sockets, clocks or maps.
///
/// Invariant: a command is sent again only after a reply that says that it has not run, and never after its deadline. A command whose reply is missing has an
///   unknown outcome: it ends there, whatever comes later. A command that may be sent once is never sent a second time, whatever the reply says.
/// Bounds: `maximumRedirects` sendings after the first one; one `ASK` is followed; a pause of at most `longestPause` between two sendings.
struct ClusterCall: Sendable {
    /// Sendings of one command after the first one, at most.
    static let maximumRedirects = 5
    /// The pause after the first TRYAGAIN. It doubles with each further one.
    static let pause = TimeAmount.milliseconds(2)
    static let longestPause = TimeAmount.milliseconds(16)

    /// Where a command goes.
    enum Target: Sendable, Hashable {
        /// The master that the slot map names.
        case owner
        /// The node that a reply has named.
        case node(RedisEndpoint)
        /// The node that a reply has named, with an `ASKING` before the command.
        case asking(RedisEndpoint)
    }

    struct Step: Sendable, Equatable {
        enum Next: Sendable, Equatable {
            /// The call has ended: its caller gets this outcome.
            case end
            case send(Target, after: TimeAmount)
        }

        var next: Next
        /// Why the slot map may be old; nil if nothing says so.
        var doubt: Doubt?
    }

    /// Why the slot map may be old.
    enum Doubt: Sendable, Hashable {
        /// The node that was asked says that this node serves the slot.
        case moved(HashSlot, to: RedisEndpoint)
        /// A node is a replica, or knows of slots that nobody serves.
        case unknown
    }

    private let isRepeatable: Bool
    private let deadline: NIODeadline
    private(set) var target = Target.owner
    private(set) var redirects = 0
    private var tries = 0
    private var hasAsked = false

    /// - Parameters:
    ///   - isRepeatable: whether it may be sent again at all.
    ///   - deadline: after this time it is not sent again.
    init(isRepeatable: Bool, deadline: NIODeadline) {
        self.isRepeatable = isRepeatable
        self.deadline = deadline
    }

    /// What was sent last has failed.
    /// - Parameter replied: the node that it was sent to.
    mutating func failed(_ error: RedisError, replied: RedisEndpoint, now: NIODeadline) -> Step {
        // Only a server's error reply can say that the command has not run. Any other failure leaves that open, or was found by this process itself.
        guard let server = error.serverError else { return Step(next: .end) }
        if let redirection = Redirection(server, replied: replied) {
            switch redirection.kind {
            case .moved:
                return again(.node(redirection.node), doubt: .moved(redirection.slot, to: redirection.node), now: now)
            case .ask:
                // A slot moves between two nodes. If the node that an ASK named answers with another ASK, the slot is about to move again, and the call ends.
                guard !hasAsked else { return Step(next: .end) }
                let step = again(.asking(redirection.node), doubt: nil, now: now)
                hasAsked = step.next != .end
                return step
            }
        }
        switch server.kind {
        case .moved, .ask: return Step(next: .end, doubt: .unknown)
        case .tryAgain:
            let pause = min(Self.longestPause, Self.pause * (1 << min(tries, 8)))
            tries += 1
            return again(target, doubt: nil, after: pause, now: now)
        case .clusterDown: return Step(next: .end, doubt: .unknown)
        default: return Step(next: .end, doubt: server.isReadOnly ? .unknown : nil)
        }
    }

    private mutating func again(_ target: Target, doubt: Doubt?, after pause: TimeAmount = .zero, now: NIODeadline) -> Step {
        guard isRepeatable, redirects < Self.maximumRedirects, now + pause < deadline else { return Step(next: .end, doubt: doubt) }
        redirects += 1
        self.target = target
        return Step(next: .send(target, after: pause), doubt: doubt)
    }
}
