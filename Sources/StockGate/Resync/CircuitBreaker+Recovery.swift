import CircuitBreaker

extension CircuitBreaker {
    /// Whether calls are kept away from Redis, after failures or by hand. A recovery resyncs every product before calls go there again.
    var isOpen: Bool {
        switch state {
        case .open, .forcedOpen: true
        case .closed, .halfOpen, .disabled, .metricsOnly: false
        }
    }

    /// Whether the breaker used the last recovery that ended, that is, let calls through after it; nil if that is unknown.
    var isLastRecoveryUsed: Bool? {
        recentEvents().reversed().lazy.compactMap { event -> Bool? in
            switch event.kind {
            case .recoveryPassed: true
            case .recoveryFailed: false
            default: nil
            }
        }.first
    }

    /// Waits until no recovery runs. The recovery's time limit bounds the wait, and so does the breaker's shutdown.
    /// - Returns: false if a recovery may still run: the breaker was shut down, the task was cancelled, or too many tasks read the breaker's events already
    func recoveryEnded() async -> Bool {
        // The events are subscribed to before the first look. The end of a recovery is an event, so an end between a look and the wait is still seen.
        var events = events(bufferCapacity: 1).makeAsyncIterator()
        while snapshot().isRecoveryRunning {
            guard await events.next() != nil else { return false }
        }
        return true
    }
}
