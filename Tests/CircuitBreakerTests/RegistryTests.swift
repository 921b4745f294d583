import CircuitBreaker
import Testing

@Suite struct RegistryTests {
    @Test func makesEachOnceWithItsSettings() throws {
        let registry = CircuitBreakerRegistry(
            overrides: ["search": try CircuitBreakerConfiguration { $0.failureRateThreshold = 80 }],
            capacity: 2
        )
        let search = try registry.breaker(named: "search")
        #expect(search.configuration.failureRateThreshold == 80)
        #expect(try registry.breaker(named: "search") === search)
        #expect(try registry.breaker(named: "cart").configuration.failureRateThreshold == 50)
        #expect(registry["other"] == nil)
        #expect(throws: CircuitBreakerRegistryError.full(capacity: 2)) { try registry.breaker(named: "other") }
        #expect(registry.breakers.map(\.name) == ["cart", "search"])
        #expect(throws: CircuitBreakerRegistryError.nameTaken("cart")) { try registry.add(CircuitBreaker(name: "cart")) }
        #expect(registry.remove(named: "cart")?.name == "cart")
        try registry.add(CircuitBreaker(name: "other"))
        registry.shutdown()
        #expect(throws: CircuitBreakerRegistryError.shutDown) { try registry.breaker(named: "new") }
        #expect(registry["search"] === search)
    }
}
