import CircuitBreaker
import StrictJSON

// What resilience4j's actuator endpoints write, byte for byte: the order of the fields, their types, Java's way to print floats and times. Read in
// resilience4j 2: `CircuitBreakerDetails`, `CircuitBreakerEventDTO`, `CircuitBreakerUpdateStateResponse`, `CircuitBreaker.StateTransition`,
// `CircuitBreakerEvent.Type`, and the Spring Boot 3 endpoints that fill them.
//
// A reader of theirs maps `type` and `stateTransition` to enums and fails on a name that it does not know. So events that resilience4j has no name
// for are left out here; `/admin` has them all.

extension JSONWriter {
    /// A breaker as `CircuitBreakerDetails`.
    mutating func resilience4jValue(_ breaker: CircuitBreakerSnapshot, configuration: CircuitBreakerConfiguration) {
        object { json in
            json.member("failureRate", Resilience4j.percent(breaker.failureRate))
            json.member("slowCallRate", Resilience4j.percent(breaker.slowCallRate))
            // resilience4j shows the thresholds of the settings in every state. A breaker here has others in half-open.
            json.member("failureRateThreshold", Resilience4j.percent(configuration.failureRateThreshold))
            json.member("slowCallRateThreshold", Resilience4j.percent(configuration.slowCallRateThreshold))
            json.member("bufferedCalls", breaker.bufferedCalls)
            json.member("failedCalls", breaker.failedCalls)
            json.member("slowCalls", breaker.slowCalls)
            json.member("slowFailedCalls", breaker.slowFailedCalls)
            json.member("notPermittedCalls", breaker.notPermittedCalls)
            json.member("state", breaker.state.rawValue)
        }
    }

    /// An event as `CircuitBreakerEventDTO`: all of its fields, null where they say nothing.
    mutating func resilience4jValue(_ event: CircuitBreakerEvent) {
        var errorMessage: String?
        var duration: Duration?
        var stateTransition: String?
        switch event.kind {
        case .error(let label, let took): (errorMessage, duration) = (label, took)
        case .transition(let from, let to, _): stateTransition = "\(from.rawValue)_TO_\(to.rawValue)"
        default: break
        }
        object { json in
            json.member("circuitBreakerName", event.breaker)
            json.member("type", event.kind.name)
            json.member("creationTime", Resilience4j.time(unixMilliseconds: event.unixMilliseconds))
            json.member("errorMessage", errorMessage)
            json.member("durationInMs", duration.map(Resilience4j.wholeMilliseconds))
            json.member("stateTransition", stateTransition)
        }
    }
}

/// How resilience4j names and prints things.
enum Resilience4j {
    /// `CircuitBreakerEvent.Type`. Of successful and ignored calls a breaker here has counters, but no events.
    enum EventType: String, CaseIterable {
        case error = "ERROR"
        case ignoredError = "IGNORED_ERROR"
        case success = "SUCCESS"
        case notPermitted = "NOT_PERMITTED"
        case stateTransition = "STATE_TRANSITION"
        case reset = "RESET"
        case forcedOpen = "FORCED_OPEN"
        case disabled = "DISABLED"
        case failureRateExceeded = "FAILURE_RATE_EXCEEDED"
        case slowCallRateExceeded = "SLOW_CALL_RATE_EXCEEDED"
    }

    /// Whether `CircuitBreakerEvent.Type` and `CircuitBreaker.StateTransition` have a name for it.
    static func knows(_ event: CircuitBreakerEvent) -> Bool {
        if case .transition(let from, let to, _) = event.kind {
            switch (from, to) {
            // resilience4j has no name for a start in a recovery, and goes from metrics-only to closed at once.
            case (.closed, .halfOpen), (.metricsOnly, .halfOpen), (.metricsOnly, .open): return false
            default: return true
            }
        }
        return EventType(rawValue: event.kind.name) != nil
    }

    /// `float + "%"` in Java: the shortest digits that are this 32-bit number and no other, with at least one decimal: `33.333332%`. `-1.0%` for nil.
    static func percent(_ rate: Double?) -> String {
        let float = Float(rate ?? -1)
        let text = float.description
        // Java writes an exponent below a thousandth, Swift below a ten-thousandth. No rate of a million calls is below that.
        guard float > 0, float < 1e-3, text.hasPrefix("0.000") else { return text + "%" }
        let digits = text.dropFirst("0.000".count)
        return "\(digits.prefix(1)).\(digits.count > 1 ? digits.dropFirst() : "0")E-4%"
    }

    /// `ZonedDateTime.toString()` of a machine in UTC: `2026-01-31T09:30:00.123Z[UTC]`; what is zero at the end is left out, from the fraction on.
    static func time(unixMilliseconds: Int64) -> String {
        let text = Timestamp(microsecondsSinceEpoch: unixMilliseconds * 1000).description
        let whole = text.prefix { $0 != "." }
        let fraction = text.dropFirst(whole.count + 1).prefix(3)
        if fraction != "000" { return "\(whole).\(fraction)Z[UTC]" }
        return "\(whole.hasSuffix(":00") ? whole.dropLast(3) : whole)Z[UTC]"
    }

    /// `Duration.toMillis()`.
    static func wholeMilliseconds(_ duration: Duration) -> Int64 {
        duration.components.seconds * 1000 + duration.components.attoseconds / 1_000_000_000_000_000
    }
}
