import NIOCore

/// One subscription to a sentinel's `+switch-master`: what is sent, and what is taken from what comes. No sockets or clocks.
///
/// What is heard is a hint alone: it makes the client search, and the names in it are not used.
/// Bounds: silence of `silence` ends the subscription; a `PING` is sent with each tick, so that a sentinel that is well is never silent for that long.
struct SwitchWatch {
    static let channel = "+switch-master"

    enum Action: Equatable {
        case none
        case subscribe
        case ping
        /// Search: the subscription has begun, and what came before it was not heard.
        case listening
        /// Search: the sentinel says that the master has changed.
        case switched
        /// Close. The text is for a log.
        case end(String)
    }

    private enum Phase { case authenticating, subscribing, listening, ended }

    private let master: String
    private let silence: TimeAmount
    private var phase: Phase
    private var lastHeard: NIODeadline

    /// - Parameter authenticates: whether `AUTH` was sent; else `SUBSCRIBE` was.
    init(master: String, authenticates: Bool, silence: TimeAmount, now: NIODeadline) {
        self.master = master
        self.silence = silence
        phase = authenticates ? .authenticating : .subscribing
        lastHeard = now
    }

    mutating func received(_ value: RedisValue, now: NIODeadline) -> Action {
        lastHeard = now
        if case .error(let error) = value {
            guard self.phase != .ended else { return .none }
            return end("the sentinel refuses: \(error.kind)")
        }
        switch self.phase {
        case .ended: return .none
        case .authenticating:
            self.phase = .subscribing
            return .subscribe
        case .subscribing:
            guard let parts = value.array, parts.count == 3, parts[0].string == "subscribe", parts[1].string == Self.channel else {
                return end("the sentinel answers SUBSCRIBE with something else")
            }
            self.phase = .listening
            return .listening
        case .listening:
            guard let parts = value.array, parts.count == 3, parts[0].string == "message", parts[1].string == Self.channel,
                let words = parts[2].string?.split(separator: " "), words.first.map(String.init) == master
            else { return .none }
            return .switched
        }
    }

    mutating func tick(now: NIODeadline) -> Action {
        guard phase != .ended else { return .none }
        guard now < lastHeard + silence else { return end("nothing was heard from it") }
        return phase == .listening ? .ping : .none
    }

    private mutating func end(_ why: String) -> Action {
        phase = .ended
        return .end(why)
    }
}
