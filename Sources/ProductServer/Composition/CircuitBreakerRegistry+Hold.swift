import CircuitBreaker

extension CircuitBreakerRegistry {
    /// Holds these breakers and no others. A master of a cluster that comes back has a new breaker under the name of the one before.
    func hold(_ wanted: [CircuitBreaker]) {
        for breaker in breakers where !wanted.contains(where: { $0 === breaker }) { remove(named: breaker.name) }
        // The registry holds more breakers than a cluster has masters, and their names differ.
        for breaker in wanted where self[breaker.name] == nil { try? add(breaker) }
    }
}
