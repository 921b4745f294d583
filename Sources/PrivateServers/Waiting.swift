/// Waits until servers are in a state, for two minutes.
///
/// A question that fails is a question that is not answered yet: servers that fail over close connections. The last failure's words stand in what is thrown at the
/// bound.
func until(_ what: String, _ holds: () throws -> Bool) async throws {
    let deadline = ContinuousClock.now + .seconds(120)
    while true {
        let outcome = Result { try holds() }
        if case .success(true) = outcome { return }
        guard ContinuousClock.now < deadline else {
            var reason = ""
            if case .failure(let error) = outcome { reason = "; the last question failed: \(error)" }
            throw PrivateRedis.Failure(description: "not within two minutes: \(what)\(reason)")
        }
        try await Task.sleep(for: .milliseconds(20))
    }
}
