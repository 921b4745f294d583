extension CircuitBreaker {
    /// Runs a call when the breaker permits it, and records how it ended.
    ///
    /// ```swift
    /// let price = try await breaker.run { try await catalogue.price(of: id) }
    /// ```
    ///
    /// - Parameters:
    ///   - classify: judges the error a call threw. By default `CancellationError`, and any error thrown while the task is cancelled, is
    ///     ``CallOutcome/cancelled``, and every other a ``CallOutcome/failure(_:)`` labelled with the error's type. A call that returns is a success.
    ///   - operation: the call. It runs where the caller runs.
    /// - Returns: what the call returned.
    /// - Throws: ``CircuitBreakerRejected`` when the breaker turns the call away; what the call threw otherwise.
    nonisolated(nonsending) public func run<Value>(
        classify: (any Error) -> CallOutcome = CircuitBreaker.outcome(of:),
        _ operation: nonisolated(nonsending) () async throws -> Value
    ) async throws -> Value {
        let permit: Permit
        switch admit() {
        case .permitted(let given): permit = given
        case .rejected(let rejection): throw CircuitBreakerRejected(name: name, rejection: rejection)
        }
        do {
            let value = try await operation()
            record(.success, for: permit)
            return value
        } catch {
            record(classify(error), for: permit)
            throw error
        }
    }

    /// The default judgement of an error, see ``run(classify:_:)``.
    public static func outcome(of error: any Error) -> CallOutcome {
        if error is CancellationError || Task.isCancelled { return .cancelled }
        return .failure(String(describing: type(of: error)))
    }
}
