public import Foundation
import Synchronization

/// One change of the breaker's state.
public struct BreakerTransition: Equatable, Sendable, Codable {
    /// Since the sale opened, in seconds; below 0 before it.
    public var atSeconds: Double
    /// The state it left, such as `CLOSED`.
    public var from: String
    /// The state it entered, such as `OPEN`.
    public var to: String
    /// Why, where the server says so.
    public var reason: String?
    /// Whether the harness only saw the state change between two looks, without an event of the server's.
    public var inferred: Bool
}

/// What a breaker's event adds to the story: a transition, a resync.
public struct BreakerNotice: Equatable, Sendable {
    /// Since the sale opened, in seconds.
    public var atSeconds: Double
    /// The event in words.
    public var text: String
}

/// What the breaker did, from two sources: its events, which miss nothing between two looks, and its state as looked at,
/// which stands in where a restarted server has forgotten its events.
///
/// Bounds: 2,000 events of a sale; what comes after them is not taken in.
public struct BreakerHistory: Sendable {
    /// In the order of their times.
    public private(set) var transitions: [BreakerTransition] = []
    /// The state now, as far as known.
    public private(set) var state: String?
    private var known: Set<String> = []
    private var unexplained: (state: String, since: Double)?
    private static let limit = 1_000
    /// How long a change may wait for its event before it counts as inferred, in seconds.
    static let patience = 1.0

    /// Nothing known yet.
    public init() {}

    /// An event as the server tells it.
    public struct Event: Equatable, Sendable {
        /// `STATE_TRANSITION` and others.
        public var type: String
        /// When it happened.
        public var time: Date
        /// `CLOSED_TO_OPEN`, for transitions.
        public var transition: String?
        /// Why, or what came of it.
        public var reason: String?
        /// How long what ended with this event took, in milliseconds.
        public var took: Int?

        /// The breaker's way back leads through a recovery, in which every gated product is resynced: that part is worth telling.
        /// Nil for events that the story leaves out, such as the errors of single calls.
        var sentence: String? {
            let end = (took.map { " after \($0) ms" } ?? "") + (reason.map { ": \($0)" } ?? "")
            return switch type {
            case "RECOVERY_GATE_STARTED": "resync begins"
            case "RECOVERY_GATE_PASSED": "resync done\(end)"
            case "RECOVERY_GATE_FAILED": "resync failed\(end)"
            default: type.contains("RESYNC") ? type + end : nil
            }
        }
    }

    /// Reads the answer of `/admin/circuitbreakerevents`: a list, alone or under `circuitBreakerEvents` or `events`.
    /// What is no event with a type and a time is left out.
    public static func events(json: Data) -> [Event] {
        let root = try? JSONSerialization.jsonObject(with: json)
        let keyed = root as? [String: Any]
        let list = (keyed?["circuitBreakerEvents"] ?? keyed?["events"] ?? root) as? [[String: Any]] ?? []
        return list.compactMap { item in
            guard let type = item["type"] as? String, let time = (item["creationTime"] as? String).flatMap(Self.time) else { return nil }
            let reason = ["reason", "errorMessage", "message"].lazy.compactMap { item[$0] as? String }.first { !$0.isEmpty }
            return Event(
                type: type,
                time: time,
                transition: item["stateTransition"] as? String,
                reason: reason,
                took: item["durationInMs"] as? Int
            )
        }
    }

    /// Reads the answer of `/admin/circuitbreakers`: the state of the breaker in front of Redis; in a cluster that of a master which is not well, if there is one.
    public static func state(json: Data) -> String? {
        let root = (try? JSONSerialization.jsonObject(with: json)) as? [String: Any]
        let breakers = (root?["circuitBreakers"] as? [String: Any]) ?? root
        let states = (breakers ?? [:]).filter { $0.key == "redisStock" || $0.key.hasPrefix("redisStock@") }
            .compactMapValues { ($0 as? [String: Any])?["state"] as? String }
        return states.values.sorted().first { $0 != "CLOSED" } ?? states.values.first
    }

    static func time(_ text: String) -> Date? {
        // resilience4j appends a zone's name in brackets.
        let plain = text.prefix { $0 != "[" }
        for fraction in [true, false] {
            if let date = try? Date(String(plain), strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: fraction)) { return date }
        }
        return nil
    }

    /// Takes in events; those known already are skipped. Returns what is new, the notices in the server's order.
    /// - Parameter opened: the moment the sale opened; events more than a second older belong to an earlier sale.
    public mutating func learn(_ events: [Event], opened: Date) -> (transitions: [BreakerTransition], notices: [BreakerNotice]) {
        var newTransitions: [BreakerTransition] = []
        var newNotices: [BreakerNotice] = []
        for event in events {
            let at = event.time.timeIntervalSince(opened)
            guard at > -1 else { continue }
            let isTransition = event.type == "STATE_TRANSITION"
            let sentence = event.sentence
            guard isTransition || sentence != nil else { continue }
            let key = "\(event.type) \(event.time.timeIntervalSince1970) \(event.transition ?? event.reason ?? "")"
            guard known.count < 2 * Self.limit, known.insert(key).inserted else { continue }
            if isTransition {
                guard let states = event.transition?.components(separatedBy: "_TO_"), states.count == 2 else { continue }
                let transition = BreakerTransition(atSeconds: at, from: states[0], to: states[1], reason: event.reason, inferred: false)
                insert(transition)
                newTransitions.append(transition)
                newNotices.append(BreakerNotice(atSeconds: at, text: transition.sentence))
            } else if let sentence {
                newNotices.append(BreakerNotice(atSeconds: at, text: sentence))
            }
        }
        if !newTransitions.isEmpty, let last = transitions.last {
            state = last.to
            unexplained = nil
        }
        return (newTransitions, newNotices)
    }

    /// Takes in a look at the state. Returns a transition if the state changed and no event has told of it for `patience`.
    public mutating func look(_ seen: String, atSeconds: Double) -> BreakerTransition? {
        guard let state else {
            state = seen
            return nil
        }
        guard seen != state else {
            unexplained = nil
            return nil
        }
        guard let waiting = unexplained, waiting.state == seen else {
            unexplained = (seen, atSeconds)
            return nil
        }
        guard atSeconds - waiting.since >= Self.patience else { return nil }
        let transition = BreakerTransition(atSeconds: waiting.since, from: state, to: seen, reason: nil, inferred: true)
        insert(transition)
        self.state = seen
        unexplained = nil
        return transition
    }

    private mutating func insert(_ transition: BreakerTransition) {
        guard transitions.count < Self.limit else { return }
        let place = transitions.lastIndex { $0.atSeconds <= transition.atSeconds }.map { $0 + 1 } ?? 0
        transitions.insert(transition, at: place)
    }
}
