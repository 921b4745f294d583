// Which routes the broker refuses, and when the connection must be replaced for that.
//
// A queue that is full refuses what is published (`basic.nack`) and says so once to each channel that publishes to it; the channel then refuses by itself, without
// asking, until the queue tells it that there is room. RabbitMQ 3.10 forgets to tell it where the limit itself goes away: a channel that was refused is refused for
// ever once the policy with `max-length` is deleted. It forgets a channel in another case too: the channel's first message to a queue asks a node of the queue that
// is down, and every further message asks the same node. A new channel asks anew, and over a node that is there.
//
// Invariant: a connection is replaced only if a route has been refused for `patience` without a confirm in between, and at most once in `patience`. A refusal that
//   ends by itself within that time replaces nothing.
// Bound: `maximumRoutes` routes; further ones are not watched while those are refused.

/// Decides from the answers to published messages whether a connection is worth keeping. It has no clock of its own.
struct RejectionWatch {
    /// Where messages are published to.
    struct Route: Hashable {
        var exchange: String
        var routingKey: String

        /// `exchange/routing key`.
        var text: String { "\(exchange)/\(routingKey)" }
    }

    /// What follows from a refusal.
    enum Finding: Hashable {
        /// Nothing yet: it is new, or the connection was replaced a moment ago.
        case none
        /// The connection must be replaced. `isNews`: nobody was told yet that the route is refused.
        case replace(isNews: Bool)
    }

    private struct Refusal {
        var since: ContinuousClock.Instant
        var last: ContinuousClock.Instant
        var isTold = false
    }

    static let maximumRoutes = 64
    /// How long a refusal may last before the connection is replaced, and the shortest time between two replacements.
    let patience: Duration
    private var refusals: [Route: Refusal] = [:]
    private var replacedAt: ContinuousClock.Instant?

    init(patience: Duration) { self.patience = patience }

    /// The routes that have been refused for so long that somebody was told, each with its last refusal.
    var refused: [String: ContinuousClock.Instant] {
        Dictionary(refusals.compactMap { $1.isTold ? ($0.text, $1.last) : nil }) { max($0, $1) }
    }
    /// Whether no route is refused. Until one is, `confirmed` need not be called.
    var isEmpty: Bool { refusals.isEmpty }

    /// The broker refused a message on this route.
    mutating func refused(_ route: Route, at now: ContinuousClock.Instant) -> Finding {
        guard let refusal = refusals[route] else {
            if refusals.count < Self.maximumRoutes { refusals[route] = Refusal(since: now, last: now) }
            return .none
        }
        refusals[route]?.last = now
        guard now - refusal.since >= patience, replacedAt.map({ now - $0 >= patience }) ?? true else { return .none }
        replacedAt = now
        refusals[route]?.isTold = true
        return .replace(isNews: !refusal.isTold)
    }

    /// The broker took a message on this route.
    /// - Returns: whether somebody was told that the route is refused, which has ended now
    mutating func confirmed(_ route: Route) -> Bool { refusals.removeValue(forKey: route)?.isTold ?? false }
}
