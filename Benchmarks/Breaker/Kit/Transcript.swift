import FlashSaleKit
import Foundation

/// What the breaker's endpoint showed, one look after the other: every change of state with the time since the fault.
///
/// A pure value: looks go in, lines come out.
struct Transcript: Sendable {
    /// The state that was seen last; nil before the first look.
    private(set) var state: String?

    /// Takes in a look. Returns the state if it has changed; a body without a state changes nothing.
    mutating func look(_ body: Data) -> String? {
        guard let seen = BreakerHistory.state(json: body), seen != state else { return nil }
        state = seen
        return seen
    }

    /// Begins anew: the next look is a change.
    mutating func forget() { state = nil }

    /// The words for a change. In HALF_OPEN the breaker first runs its recovery and then lets probes through, and the events tell which.
    static func words(_ state: String, events: [BreakerHistory.Event]) -> String {
        guard state == "HALF_OPEN" else { return state }
        return switch events.last(where: { $0.type.hasPrefix("RECOVERY_GATE") })?.type {
        case "RECOVERY_GATE_STARTED": "\(state), the recovery is running"
        case "RECOVERY_GATE_PASSED": "\(state), the recovery has passed: probes"
        default: state
        }
    }

    /// A line at so many milliseconds since the fault, with their sign.
    static func line(_ milliseconds: Int, _ words: String) -> String {
        let (seconds, rest) = milliseconds.magnitude.quotientAndRemainder(dividingBy: 1000)
        let time = "\(milliseconds < 0 ? "-" : "+")\(seconds).\(String(rest + 1000).dropFirst()) s"
        return String(repeating: " ", count: max(0, 10 - time.count)) + time + "  " + words
    }
}

/// The breaker's events since the fault, judged.
struct RecoveryStory: Sendable {
    /// Changes of state and of the recovery.
    let events: [BreakerHistory.Event]
    /// Errors of single calls by what they say, most often first.
    let errors: [(words: String, count: Int)]

    private static let told: Set<String> = [
        "STATE_TRANSITION", "RECOVERY_GATE_STARTED", "RECOVERY_GATE_PASSED", "RECOVERY_GATE_FAILED",
    ]

    /// - Parameters:
    ///   - all: what the endpoint told, oldest first.
    ///   - fault: when Redis was taken away; earlier events belong to the start.
    init(_ all: [BreakerHistory.Event], since fault: Date) {
        events = all.filter { $0.time >= fault && Self.told.contains($0.type) }
        var counts: [String: Int] = [:]
        for event in all where event.type == "ERROR" && event.time >= fault { counts[event.reason ?? "unknown", default: 0] += 1 }
        errors = counts.map { (words: $0.key, count: $0.value) }.sorted { ($1.count, $0.words) < ($0.count, $1.words) }
    }

    /// What is wrong with it; empty where the breaker opened, and closed in the end after a recovery that had passed.
    var findings: [String] {
        guard let opened = events.firstIndex(where: { $0.transition?.hasSuffix("_TO_OPEN") == true }) else {
            return ["the breaker did not open"]
        }
        let behind = events[opened...]
        guard let closed = behind.lastIndex(where: { $0.transition?.hasSuffix("_TO_CLOSED") == true }) else {
            return ["the breaker did not close again"]
        }
        var findings: [String] = []
        if events[closed...].contains(where: { $0.transition?.hasSuffix("_TO_OPEN") == true }) {
            findings.append("the breaker opened again after it had closed")
        }
        // Only a recovery after the last opening counts: an earlier one knew nothing of the units that were sold since.
        let lastOpening = behind[..<closed].lastIndex { $0.transition?.hasSuffix("_TO_OPEN") == true } ?? opened
        if !events[lastOpening..<closed].contains(where: { $0.type == "RECOVERY_GATE_PASSED" }) {
            findings.append("the breaker closed without a recovery that had passed")
        }
        return findings
    }

    /// The events, a line each, by the seconds since the fault.
    func lines(since fault: Date) -> [String] {
        events.map { event in
            let milliseconds = Int((event.time.timeIntervalSince(fault) * 1000).rounded())
            let took = event.took.map { " after \($0) ms" } ?? ""
            return Transcript.line(
                milliseconds,
                [event.type, event.transition, event.reason].compactMap { $0 }.joined(separator: " ") + took
            )
        }
    }

    /// Errors of single calls in one line.
    var errorLine: String {
        errors.isEmpty
            ? "no errors of single calls" : "and of single calls: " + errors.map { "\($0.count) x \($0.words)" }.joined(separator: ", ")
    }
}
