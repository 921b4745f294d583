import Testing

@testable import CircuitBreaker

@Suite struct ConfigurationTests {
    typealias Change = @Sendable (inout CircuitBreakerConfiguration.Values) -> Void

    static let senseless: [(field: String, change: Change)] = [
        ("window", { $0.window = .count(0) }),
        ("window", { $0.window = .count(1_000_001) }),
        ("window", { $0.window = .time(seconds: 0) }),
        ("window", { $0.window = .time(seconds: 3_601) }),
        ("minimumNumberOfCalls", { $0.minimumNumberOfCalls = 0 }),
        ("minimumNumberOfCalls", { $0.minimumNumberOfCalls = 101 }),
        ("failureRateThreshold", { $0.failureRateThreshold = 0 }),
        ("failureRateThreshold", { $0.failureRateThreshold = 100.5 }),
        ("failureRateThreshold", { $0.failureRateThreshold = .nan }),
        ("slowCallRateThreshold", { $0.slowCallRateThreshold = -1 }),
        ("slowCallDurationThreshold", { $0.slowCallDurationThreshold = .zero }),
        ("slowCallDurationThreshold", { $0.slowCallDurationThreshold = .seconds(400 * 86_400) }),
        ("permittedCallsInHalfOpen", { $0.permittedCallsInHalfOpen = 0 }),
        ("permittedCallsInHalfOpen", { $0.permittedCallsInHalfOpen = 1_001 }),
        ("halfOpenFailureRateThreshold", { $0.halfOpenFailureRateThreshold = 0 }),
        ("halfOpenSlowCallRateThreshold", { $0.halfOpenSlowCallRateThreshold = .infinity }),
        ("maximumTimeInHalfOpen", { $0.maximumTimeInHalfOpen = .zero }),
        ("permitLease", { $0.permitLease = .seconds(-1) }),
        ("waitInOpen", { $0.waitInOpen = .constant(.zero) }),
        ("waitInOpen.initial", { $0.waitInOpen = .exponential(initial: .zero, maximum: .seconds(1)) }),
        ("waitInOpen.maximum", { $0.waitInOpen = .exponential(initial: .seconds(2), maximum: .seconds(1)) }),
        ("waitInOpen.multiplier", { $0.waitInOpen = .exponential(initial: .seconds(1), multiplier: 0.5, maximum: .seconds(1)) }),
        ("waitInOpen.jitter", { $0.waitInOpen = .exponential(initial: .seconds(1), jitter: 1.5, maximum: .seconds(1)) }),
        ("waitInOpen.maximum", { $0.waitInOpen = .custom(maximum: .zero) { _ in .seconds(1) } }),
        ("recoveryTimeLimit", { $0.recoveryTimeLimit = .zero }),
        ("healthCheckInterval", { $0.healthCheckInterval = .zero }),
        ("healthCheckTimeLimit", { $0.healthCheckTimeLimit = .zero }),
        ("ramp.duration", { $0.ramp = .init(duration: .zero) }),
        ("ramp.initialShare", { $0.ramp = .init(duration: .seconds(1), initialShare: 1) }),
        ("eventRingCapacity", { $0.eventRingCapacity = 0 }),
        ("rejectionEventInterval", { $0.rejectionEventInterval = .seconds(-1) }),
    ]

    @Test(arguments: senseless.indices)
    func senselessSettingsAreRefusedByName(index: Int) {
        let (field, change) = Self.senseless[index]
        let error = #expect(throws: CircuitBreakerConfigurationError.self) { try CircuitBreakerConfiguration(change) }
        #expect(error?.field == field)
        #expect(error?.description.hasPrefix("\(field): ") == true)
        #expect(throws: CircuitBreakerConfigurationError.self) { try CircuitBreakerConfiguration.default.changing(change) }
    }

    @Test func theDefaultsMakeSense() throws {
        _ = try CircuitBreakerConfiguration(CircuitBreakerConfiguration.Values())
        #expect(CircuitBreakerConfiguration.default.failureRateThreshold == 50)
        let changed = try CircuitBreakerConfiguration.default.changing { $0.failureRateThreshold = 20 }
        #expect(changed.failureRateThreshold == 20)
        #expect(changed.permittedCallsInHalfOpen == CircuitBreakerConfiguration.default.permittedCallsInHalfOpen)
    }

    @Test func waitsGrowAndAreCapped() {
        let exact = WaitInOpen.exponential(initial: .seconds(1), multiplier: 2, jitter: 0, maximum: .seconds(10))
        #expect((1...6).map { exact.nanoseconds(attempt: $0, random: 0.9) / second } == [1, 2, 4, 8, 10, 10])
        #expect(exact.nanoseconds(attempt: .max, random: 0) == 10 * second)
        let spread = WaitInOpen.exponential(initial: .seconds(2), multiplier: 1, jitter: 0.5, maximum: .seconds(10))
        #expect(spread.nanoseconds(attempt: 9, random: 0) == second)
        #expect(spread.nanoseconds(attempt: 9, random: 0.5) == 2 * second)
        #expect(WaitInOpen.constant(.seconds(5)).nanoseconds(attempt: 7, random: 0.3) == 5 * second)
        let own = WaitInOpen.custom(maximum: .seconds(3)) { .seconds($0 - 1) }
        #expect(
            (1...6).map { own.nanoseconds(attempt: $0, random: 0) } == [
                millisecond, second, 2 * second, 3 * second, 3 * second, 3 * second,
            ]
        )
    }
}
