import NIOCore

/// One command on its way through a cluster: where it is sent, and what a reply that redirects it makes of that. No sockets, clocks or maps.
///
/// Invariant: a command is sent again only behind a reply that says that it has not run, and never after its deadline. A command whose reply is missing has an
///   unknown outcome: it ends there, whatever comes later. A command that may be sent once is never sent a second time, whatever the reply says.
/// Bounds: `maximumRedirects` sendings more than one; one `ASK` is followed; a pause of at most `longestPause` between two.
struct ClusterCall: Sendable {
    /// Sendings of one command beside the first.
    static let maximumRedirects = 5
    /// The first pause behind a TRYAGAIN. It doubles with each.
    static let pause = TimeAmount.milliseconds(2)
    static let longestPause = TimeAmount.milliseconds(16)

    /// Where a command goes.
    enum Target: Sendable, Hashable {
        /// The master that the slot map names.
        case owner
        /// The node that a reply has named.
        case node(RedisEndpoint)
        /// The same, with `ASKING` in front.
        case asking(RedisEndpoint)
    }

    struct Step: Sendable, Equatable {
        enum Next: Sendable, Equatable {
            /// The outcome is the caller's.
            case end
            case send(Target, after: TimeAmount)
        }

        var next: Next
        /// The slot map may be old. With the node that knows better, where one was named.
        var doubt: Doubt?
    }

    /// Why the slot map may be old.
    enum Doubt: Sendable, Hashable {
        /// This node serves the slot, another one says.
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
    ///   - deadline: behind this time it is not sent again.
    init(isRepeatable: Bool, deadline: NIODeadline) {
        self.isRepeatable = isRepeatable
        self.deadline = deadline
    }

    /// What was sent last has failed.
    /// - Parameter replied: the node that it was sent to.
    mutating func failed(_ error: RedisError, replied: RedisEndpoint, now: NIODeadline) -> Step {
        // Everything but a server's own word leaves open what became of it, or was said by this process.
        guard let server = error.serverError else { return Step(next: .end) }
        if let redirection = Redirection(server, replied: replied) {
            switch redirection.kind {
            case .moved:
                return again(.node(redirection.node), doubt: .moved(redirection.slot, to: redirection.node), now: now)
            case .ask:
                // The node that is asked has the slot or knows its owner. One that sends on the question once more is about to lose it again.
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
