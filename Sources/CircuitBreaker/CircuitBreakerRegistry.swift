import Synchronization

/// Breakers by name, made when they are first asked for, with defaults and overrides.
///
/// ```swift
/// let registry = CircuitBreakerRegistry(
///     defaults: .default,
///     overrides: ["search": try CircuitBreakerConfiguration { $0.failureRateThreshold = 80 }]
/// )
/// let breaker = try registry.breaker(named: "search")
/// ```
public final class CircuitBreakerRegistry: Sendable {
    private struct State {
        var breakers: [String: CircuitBreaker] = [:]
        var isShutDown = false
    }

    private let defaults: CircuitBreakerConfiguration
    private let overrides: [String: CircuitBreakerConfiguration]
    private let capacity: Int
    private let clock: (any CircuitBreakerClock)?
    private let wallClock: @Sendable () -> Int64
    private let state = Guarded(State())

    /// An empty registry.
    /// - Parameters:
    ///   - defaults: the settings of a breaker that has none of its own.
    ///   - overrides: settings by name.
    ///   - capacity: the most breakers it holds; names often come from outside.
    ///   - clock: the clock of the breakers it makes, see ``CircuitBreaker/init(name:configuration:clock:wallClock:seed:startsInRecovery:recovery:healthCheck:)``.
    ///   - wallClock: milliseconds since 1970, for the events of the breakers it makes.
    public init(
        defaults: CircuitBreakerConfiguration = .default,
        overrides: [String: CircuitBreakerConfiguration] = [:],
        capacity: Int = 1_024,
        clock: (any CircuitBreakerClock)? = nil,
        wallClock: @escaping @Sendable () -> Int64 = systemUnixMilliseconds
    ) {
        self.defaults = defaults
        self.overrides = overrides
        self.capacity = capacity
        self.clock = clock
        self.wallClock = wallClock
    }

    /// The settings a breaker of this name is made with.
    public func configuration(for name: String) -> CircuitBreakerConfiguration { overrides[name] ?? defaults }

    /// The breaker of this name, made with ``configuration(for:)`` when there is none yet.
    /// - Throws: ``CircuitBreakerRegistryError``, full or shut down.
    public func breaker(named name: String) throws(CircuitBreakerRegistryError) -> CircuitBreaker {
        try breaker(named: name) { name, configuration in
            CircuitBreaker(name: name, configuration: configuration, clock: clock, wallClock: wallClock)
        }
    }

    /// The breaker of this name, made by `make` when there is none yet: for one with a recovery or a health check.
    ///
    /// `make` is called with the registry's lock held, so that a breaker is made once: it must not call the registry.
    /// - Throws: ``CircuitBreakerRegistryError``, full or shut down.
    public func breaker(
        named name: String,
        make: (_ name: String, _ configuration: CircuitBreakerConfiguration) -> CircuitBreaker
    ) throws(CircuitBreakerRegistryError) -> CircuitBreaker {
        let configuration = configuration(for: name)
        return try state.withLock { state throws(CircuitBreakerRegistryError) in
            if let breaker = state.breakers[name] { return breaker }
            guard !state.isShutDown else { throw .shutDown }
            guard state.breakers.count < capacity else { throw .full(capacity: capacity) }
            let breaker = make(name, configuration)
            state.breakers[name] = breaker
            return breaker
        }
    }

    /// Adds a breaker that was made elsewhere, under its own name.
    /// - Throws: ``CircuitBreakerRegistryError``, when the name is taken, full or shut down.
    public func add(_ breaker: CircuitBreaker) throws(CircuitBreakerRegistryError) {
        try state.withLock { state throws(CircuitBreakerRegistryError) in
            guard !state.isShutDown else { throw .shutDown }
            guard state.breakers[breaker.name] == nil else { throw .nameTaken(breaker.name) }
            guard state.breakers.count < capacity else { throw .full(capacity: capacity) }
            state.breakers[breaker.name] = breaker
        }
    }

    /// The breaker of this name, if there is one. Makes none.
    public subscript(name: String) -> CircuitBreaker? { state.withLock { $0.breakers[name] } }

    /// All breakers, by name.
    public var breakers: [CircuitBreaker] { state.withLock { $0.breakers.values.sorted { $0.name < $1.name } } }

    /// Takes a breaker out and shuts it down. Nil when there is none of this name.
    @discardableResult
    public func remove(named name: String) -> CircuitBreaker? {
        let breaker = state.withLock { $0.breakers.removeValue(forKey: name) }
        breaker?.shutdown()
        return breaker
    }

    /// Shuts every breaker down. Makes none from then on; those it has can still be asked for.
    public func shutdown() {
        let breakers = state.withLock { state in
            state.isShutDown = true
            return Array(state.breakers.values)
        }
        for breaker in breakers { breaker.shutdown() }
    }
}

/// Why a registry did not do what it was asked.
///
/// ```swift
/// do { return try registry.breaker(named: host) } catch .full { return shared }
/// ```
public enum CircuitBreakerRegistryError: Error, Sendable, Hashable {
    /// It holds as many breakers as it may.
    case full(capacity: Int)
    /// It holds another breaker of this name.
    case nameTaken(String)
    /// It was shut down.
    case shutDown
}
