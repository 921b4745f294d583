import APIErrors
import Eventually
import NIOHTTP1
import NIOPosix
import ServerKit
import StockContract
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

@Suite("The price that a buyer names", .serialized, .timeLimit(.minutes(10)))
struct UnitPriceTests {
    private func order(
        _ bed: TestBed,
        _ price: Int,
        product: String = "CATALOG-002",
        key: String? = nil,
        quantity: Int = 2
    ) async throws -> TestBed.Answer {
        try await bed.send(
            .POST,
            "/u-9/orders",
            #"{"productId":"\#(product)","qty":\#(quantity),"unitPrice":\#(price)}"#,
            headers: key.map { ["idempotency-key": $0] } ?? [:]
        )
    }

    @Test("is the product's unless told otherwise; a changed one is seen by the next order", arguments: ["CATALOG-002", "1"])
    func changes(product: String) async throws {
        try await TestBed.run { bed in
            #expect(try await order(bed, 900, product: product).status == 201)
            let wrong = try await order(bed, 901, product: product)
            #expect(wrong.status == 400)
            #expect(wrong["error"] == "VALIDATION_ERROR")
            #expect(wrong["details"]["field"] == "unitPrice")
            #expect(wrong["details"]["price"] == 900)
            bed.product.state.withLock { $0.price = 901 }
            #expect(try await order(bed, 900, product: product).status == 400)
            #expect(try await order(bed, 901, product: product)["totalPrice"] == 1802)
            #expect(try await bed.count("select count(*) from orders") == 2)
            #expect(bed.product.seen.count == 2)
        }
    }

    @Test("any passes with CHECK_UNIT_PRICE=false, and a code that is known costs no look")
    func unchecked() async throws {
        try await TestBed.run(settings: ["CHECK_UNIT_PRICE": "false"]) { bed in
            for price in [1, 2] {
                let answer = try await order(bed, price)
                #expect(answer.status == 201)
            }
            #expect(bed.product.state.withLock { $0.looks } == 1)
        }
    }

    @Test("a product server that does not answer is 424 and leaves no order; one lost connection is not noticed")
    func unreachable() async throws {
        try await TestBed.run(settings: ["PRODUCT_TIMEOUT": "2s"]) { bed in
            // One that does not answer neither: the other attempt may reach another instance.
            for fault in [ProductStandIn.LookFault.drop, .hang] {
                bed.product.state.withLock { $0.lookFaults = [fault] }
                #expect(try await order(bed, 900).status == 201)
            }
            for faults in [[ProductStandIn.LookFault.drop, .drop], [.hang, .hang]] {
                bed.product.state.withLock { $0.lookFaults = faults }
                let answer = try await order(bed, 900, key: "k")
                #expect(answer.status == 424)
                #expect(answer["error"] == "DEPENDENCY_FAILED")
                #expect(answer.headers.contains(name: "retry-after"))
                bed.product.state.withLock { $0.lookFaults = [] }
            }
            #expect(try await bed.count("select count(*) from orders") == 2)
        }
    }

    @Test(
        "a repeat gets its order after the price has changed, and while the product server is away; another payload does not",
        arguments: ["CATALOG-002", "1"]
    )
    func repeats(product: String) async throws {
        try await TestBed.run { bed in
            let made = try await order(bed, 900, product: product, key: "k")
            #expect(made.status == 201)
            bed.product.state.withLock { $0.price = 1_000 }
            for isAway in [false, true] {
                bed.product.state.withLock { $0.lookFaults = isAway ? Array(repeating: .drop, count: 20) : [] }
                let again = try await order(bed, 900, product: product, key: "k")
                #expect(again.status == 201)
                #expect(again.isReplayed)
                #expect(again["orderId"] == made["orderId"])
                // Neither another quantity nor another's key is a repeat: they get what a new order would.
                #expect(try await order(bed, 900, product: product, key: "k", quantity: 3).status == (isAway ? 424 : 400))
                #expect(try await order(bed, 900, product: product, key: "other").status == (isAway ? 424 : 400))
                let stranger = try await bed.send(
                    .POST,
                    "/u-8/orders",
                    #"{"productId":"\#(product)","qty":2,"unitPrice":900}"#,
                    headers: ["idempotency-key": "k"]
                )
                #expect(stranger.status == (isAway ? 424 : 400))
            }
            #expect(try await bed.count("select count(*) from orders") == 1)
        }
    }
}

@Suite("The catalogue as the order server sees it", .timeLimit(.minutes(10)))
struct ProductCatalogueTests {
    private func catalogue(
        _ product: ProductStandIn,
        timeout: Duration,
        waiting: Int = 1_000,
        calls: Int = 32
    ) throws -> ProductCatalogue {
        let endpoint = try #require(HTTPEndpoint(product.url))
        let peers = HTTPPeers([endpoint], loop: MultiThreadedEventLoopGroup.singleton.next())
        return ProductCatalogue(peers: peers, timeout: timeout, maximumWaiting: waiting, maximumCalls: calls)
    }

    private func outcomes(_ count: Int, _ ask: @escaping @Sendable (Int) async throws -> ProductFacts) async -> [Result<
        ProductFacts, APIError
    >] {
        await withTaskGroup(of: Result<ProductFacts, APIError>.self) { group in
            for index in 0..<count {
                group.addTask {
                    do {
                        return .success(try await ask(index))
                    } catch {
                        return .failure(error as? APIError ?? APIError(.internalError))
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
    }

    /// Waits until so many looks have come.
    private func looks(_ product: ProductStandIn, _ count: Int) async throws {
        try await eventually("\(count) looks", every: .milliseconds(1)) { product.state.withLock { $0.looks } >= count }
    }

    @Test("those who ask while a look-up is out share the next one, which begins after they came")
    func shares() async throws {
        let product = try await ProductStandIn.start(stock: [:])
        let catalogue = try self.catalogue(product, timeout: .seconds(2))
        product.state.withLock { $0.lookFaults = [.hang, .hang] }
        let first = Task { try await catalogue.facts(of: .id(1)) }
        try await looks(product, 1)
        product.state.withLock { $0.price = 77 }
        let rest = await outcomes(200) { _ in try await catalogue.facts(of: .id(1)) }
        #expect(rest.allSatisfy { (try? $0.get().price) == 77 })
        await #expect(throws: APIError.self) { try await first.value }
        // Two for the one that hung, and one for the two hundred; or a few, of those whose task began later.
        #expect(product.state.withLock { $0.looks } < 10)
        // Nothing is remembered.
        product.state.withLock { $0.price = 78 }
        #expect(try await catalogue.facts(of: .id(1)).price == 78)
        await product.stop()
    }

    @Test("a caller above the bound is OVERLOADED; whoever waits too long for his turn is given up, and nobody is forgotten")
    func bounds() async throws {
        let product = try await ProductStandIn.start(stock: [:])
        let catalogue = try self.catalogue(product, timeout: .seconds(2), waiting: 20, calls: 1)
        product.state.withLock { $0.lookFaults = Array(repeating: .hang, count: 100) }
        // Each asks for another product: one is looked up, the others wait for their turn.
        let all = await outcomes(40) { index in try await catalogue.facts(of: index % 2 == 0 ? .id(1) : .code("CODE-\(index)")) }
        // Of eleven and more products two or three were looked up, twice each, and hung; then all others had waited too long.
        #expect((2...8).contains(product.state.withLock { $0.looks }))
        let codes = all.map { result -> APIErrorCode? in if case .failure(let error) = result { error.code } else { nil } }
        #expect(codes.count { $0 == .overloaded } == 20)
        #expect(codes.count { $0 == .dependencyFailed } == 20)
        // All places are free again.
        product.state.withLock { $0.lookFaults = [] }
        let later = await outcomes(20) { _ in try await catalogue.facts(of: .id(1)) }
        #expect(later.allSatisfy { (try? $0.get().price) == 900 })
        await product.stop()
    }
}
