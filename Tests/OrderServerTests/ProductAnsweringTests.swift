import Eventually
import NIOHTTP1
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

@Suite("Whether the product servers answer", .timeLimit(.minutes(2)))
struct ProductAnsweringTests {
    private final class News: Sendable {
        private let told = Mutex<[String]>([])
        func note(_ why: String?) { told.withLock { $0.append(why ?? "answers") } }
        var all: [String] { told.withLock { $0 } }
    }

    @Test("three failures with no answer between them are told once, and so is the answer after them")
    func silence() async throws {
        let news = News()
        let answering = ProductAnswering { news.note($0) }
        for _ in 0..<2 { answering.failed(.stock, NoAnswerCause.timedOut) }
        answering.answered(.stock)
        for _ in 0..<2 { answering.failed(.stock, NoAnswerCause.timedOut) }
        #expect(news.all == [])
        for _ in 0..<20 { answering.failed(.stock, NoAnswerCause.timedOut) }
        #expect(news.all == ["TIMED_OUT"] && answering.trouble == "TIMED_OUT")
        try await eventually("it counts as answering") {
            answering.answered(.stock)
            return answering.trouble == nil
        }
        #expect(news.all == ["TIMED_OUT", "answers"])
    }

    @Test("servers of which one does not answer are told of twice a second at most")
    func half() {
        let news = News()
        let answering = ProductAnswering { news.note($0) }
        let began = ContinuousClock.now
        for _ in 0..<1_000 {
            for _ in 0..<3 { answering.failed(.stock, NoAnswerCause.cannotConnect) }
            answering.answered(.stock)
        }
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        #expect(Double(news.all.count) <= 1 + 2 * seconds, "\(news.all.count) in \(seconds) s")
    }

    @Test("a refused token is told at once; that products can be looked at does not end it")
    func token() async throws {
        let news = News()
        let answering = ProductAnswering { news.note($0) }
        answering.failed(.stock, "FORBIDDEN", status: 403)
        #expect(news.all == ["HTTP 403: it refuses the token in PRODUCT_SERVICE_TOKEN"])
        let failed = ContinuousClock.now
        try await eventually("the rest is over") { ContinuousClock.now - failed > ProductAnswering.rest }
        answering.answered(.products)
        #expect(answering.trouble?.hasPrefix("HTTP 403") == true && news.all.count == 1)
    }

    @Test("a token that the product server refuses: the order server is degraded and says why, and recovers by itself")
    func refusedToken() async throws {
        try await TestBed.run(stock: [1: 100], settings: ["ORDER_DEADLINE": "1s", "PRODUCT_BREAKER_WAIT": "200ms"]) { bed in
            bed.product.state.withLock { $0.faults = Array(repeating: .status(401, "UNAUTHORIZED"), count: 40) }
            let refused = try await bed.place(1)
            #expect(refused.status == 424, "\(refused)")
            let health = try await bed.send(.GET, "/readyz?verbose")
            let product = health["dependencies"]["productServer"] ?? .null
            #expect(health.status == 200 && product["state"] == "DEGRADED", "\(health)")
            #expect(product["detail"]?["why"] == "HTTP 401: it refuses the token in PRODUCT_SERVICE_TOKEN", "\(health)")
            bed.product.state.withLock { $0.faults = [] }
            try await eventually("it answers again") {
                _ = try await bed.place(1)
                return try await bed.send(.GET, "/readyz?verbose")["dependencies"]["productServer"]?["state"] == "UP"
            }
        }
    }
}
