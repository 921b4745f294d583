import CircuitBreaker

extension CircuitBreaker {
    /// Whether calls are kept away from Redis, by failures or by hand. Its recovery resyncs every product before calls go there again.
    var isOpen: Bool {
        switch state {
        case .open, .forcedOpen: true
        case .closed, .halfOpen, .disabled, .metricsOnly: false
        }
    }

    /// Whether the last recovery that ended was used: nil if that cannot be told.
    var isLastRecoveryUsed: Bool? {
        recentEvents().reversed().lazy.compactMap { event -> Bool? in
            switch event.kind {
            case .recoveryGatePassed: true
            case .recoveryGateFailed: false
            default: nil
            }
        }.first
    }

    /// Returns when no recovery runs. Its time limit bounds the wait, and so does the breaker's shutdown.
    /// - Returns: false if one still runs as far as is known: the breaker was shut down, the task cancelled, or too many read events
    func recoveryEnded() async -> Bool {
        // Read from before the first look, so that no end falls between a look and the wait for the next event. Each end is an event.
        var events = events(bufferCapacity: 1).makeAsyncIterator()
        while snapshot().isRecoveryGateRunning {
            guard await events.next() != nil else { return false }
        }
        return true
    }
}
