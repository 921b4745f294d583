public import CircuitBreaker
public import ServerMetrics

/// The breakers' figures, under names of our own and, if wanted, under those of resilience4j's Micrometer module.
public enum CircuitBreakerMetrics {
    /// Shows every breaker of a registry, those that are made later too.
    /// - Parameter resilience4j: whether to show them as `resilience4j_circuitbreaker_…` besides
    public static func register(_ breakers: CircuitBreakerRegistry, in metrics: MetricsRegistry, resilience4j: Bool) {
        func show(
            _ name: String,
            _ help: String,
            _ kind: MetricsRegistry.Kind,
            _ read: @escaping @Sendable (CircuitBreakerSnapshot) -> [(labels: [(name: String, value: String)], value: Double)]
        ) {
            metrics.collector(name, help: help, kind: kind) {
                breakers.breakers.flatMap { breaker in
                    read(breaker.snapshot()).map { MetricsRegistry.Sample(labels: [("name", breaker.name)] + $0.labels, $0.value) }
                }
            }
        }

        show("stockgate_circuit_breaker_state", "1 for the state the breaker is in, 0 for the others.", .gauge, states)
        show("stockgate_circuit_breaker_failure_rate_percent", "Failed calls of the window, -1 with too few calls.", .gauge) {
            [([], $0.failureRate ?? -1)]
        }
        show("stockgate_circuit_breaker_slow_call_rate_percent", "Slow calls of the window, -1 with too few calls.", .gauge) {
            [([], $0.slowCallRate ?? -1)]
        }
        show("stockgate_circuit_breaker_buffered_calls", "Calls in the window.", .gauge, buffered)
        show("stockgate_circuit_breaker_open_attempt", "Openings in a row without a recovery.", .gauge) { [([], Double($0.attempt))] }
        show("stockgate_circuit_breaker_calls_total", "Calls by outcome.", .counter) {
            [
                ([("kind", "successful")], Double($0.totals.succeeded)), ([("kind", "failed")], Double($0.totals.failed)),
                ([("kind", "ignored")], Double($0.totals.excluded)), ([("kind", "not_permitted")], Double($0.totals.notPermitted)),
            ]
        }
        show("stockgate_circuit_breaker_slow_calls_total", "Slow calls, failed or not.", .counter) { [([], Double($0.totals.slow))] }
        show("stockgate_circuit_breaker_openings_total", "Changes to OPEN.", .counter) { [([], Double($0.totals.openings))] }
        show("stockgate_circuit_breaker_late_results_total", "Results that came too late to count.", .counter) {
            [([], Double($0.totals.lateResults))]
        }
        show("stockgate_circuit_breaker_ended_leases_total", "Probes that never came back.", .counter) {
            [([], Double($0.totals.endedLeases))]
        }
        show("stockgate_circuit_breaker_dropped_events_total", "Events that a reader was too slow for.", .counter) {
            [([], Double($0.droppedEvents))]
        }

        guard resilience4j else { return }
        show("resilience4j_circuitbreaker_state", "The states of the circuit breaker", .gauge, states)
        show("resilience4j_circuitbreaker_failure_rate", "The failure rate of the circuit breaker", .gauge) { [([], $0.failureRate ?? -1)] }
        show("resilience4j_circuitbreaker_slow_call_rate", "The slow call of the circuit breaker", .gauge) { [([], $0.slowCallRate ?? -1)] }
        show("resilience4j_circuitbreaker_buffered_calls", "The number of buffered calls in the window", .gauge, buffered)
        show("resilience4j_circuitbreaker_slow_calls", "The number of slow calls in the window", .gauge) {
            [
                ([("kind", "successful")], Double($0.slowCalls - $0.slowFailedCalls)), ([("kind", "failed")], Double($0.slowFailedCalls)),
            ]
        }
        show("resilience4j_circuitbreaker_not_permitted_calls_total", "Total number of not permitted calls", .counter) {
            [([("kind", "not_permitted")], Double($0.totals.notPermitted))]
        }
        // Micrometer's timer without its decaying maximum, which no dashboard of theirs draws.
        show("resilience4j_circuitbreaker_calls_seconds_count", "Total number of calls by kind", .counter) {
            [
                ([("kind", "successful")], Double($0.totals.succeeded)), ([("kind", "failed")], Double($0.totals.failed)),
                ([("kind", "ignored")], Double($0.totals.excluded)),
            ]
        }
        show("resilience4j_circuitbreaker_calls_seconds_sum", "Total time of calls by kind", .counter) {
            [
                ([("kind", "successful")], $0.totals.succeededDuration / .seconds(1)),
                ([("kind", "failed")], $0.totals.failedDuration / .seconds(1)),
            ]
        }
    }

    private typealias Lines = [(labels: [(name: String, value: String)], value: Double)]

    @Sendable private static func states(_ snapshot: CircuitBreakerSnapshot) -> Lines {
        CircuitBreakerState.allCases.map { ([("state", $0.rawValue.lowercased())], $0 == snapshot.state ? 1 : 0) }
    }

    @Sendable private static func buffered(_ snapshot: CircuitBreakerSnapshot) -> Lines {
        [([("kind", "successful")], Double(snapshot.successfulCalls)), ([("kind", "failed")], Double(snapshot.failedCalls))]
    }
}
