import Testing

@testable import FlashSaleKit

/// Books in memory that a test breaks in one place.
struct Books: AuditSource {
    var row: ProductRow? = ProductRow(stock: 0, fence: 3, initialStock: 4)
    var restocked: Int64 = 0
    var decrementsWithoutOrder: Int64 = 0
    var orderRows: [OrderRow] = (1...4).map { OrderRow(id: $0, status: "CONFIRMED", quantity: 1) }
    var ledgerRows: [LedgerRow] = (1...4).map { LedgerRow(orderID: $0, decrements: 1, decremented: 1) }
    var redis: RedisStock? = RedisStock(counter: 0, fence: 3, pending: 0)
    var endings: [OrderEnding] = []
    var messages = OutboxTotals(open: 0, dead: 0)

    func product(_ id: Int64) async throws -> ProductRow? { row }
    func ledgerTotals(of product: Int64) async throws -> LedgerTotals {
        LedgerTotals(
            sold: ledgerRows.reduce(0) { $0 + $1.decremented },
            returned: ledgerRows.reduce(0) { $0 + $1.incremented },
            restocked: restocked,
            decrementsWithoutOrder: decrementsWithoutOrder
        )
    }
    func orderTotals(of product: Int64) async throws -> OrderTotals {
        func count(_ status: String) -> Int64 { Int64(orderRows.count { $0.status == status }) }
        return OrderTotals(
            confirmedUnits: orderRows.reduce(0) { $0 + ($1.status == "CONFIRMED" ? $1.quantity : 0) },
            confirmed: count("CONFIRMED"),
            pending: count("PENDING"),
            failed: count("FAILED"),
            cancelled: count("CANCELLED")
        )
    }
    func redisStock(of product: Int64) async -> RedisStock? { redis }
    func orders(of product: Int64, after: Int64, limit: Int) async throws -> [OrderRow] {
        Array(orderRows.filter { $0.id > after }.prefix(limit))
    }
    func ledger(of product: Int64, after: Int64, limit: Int) async throws -> [LedgerRow] {
        Array(ledgerRows.filter { $0.orderID > after }.prefix(limit))
    }
    func orderEndings(of product: Int64, after: Int64, limit: Int) async throws -> [OrderEnding] {
        Array(endings.filter { $0.id > after }.prefix(limit))
    }
    func outbox(of product: Int64) async throws -> OutboxTotals { messages }
    func hasWaitingMessages() async throws -> Bool { messages.open > messages.dead }
}

@Suite("The audit")
struct AuditTests {
    /// One break of the books, and the figures that must show it.
    struct Break: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var apply: @Sendable (inout Books) -> Void
        var answers: [Int64] = []
        var oversold: Int64 = 0
        var leaked: Int64 = 0
        var unmatched = 0
        var lost = 0
        var pending: Int64 = 0
        var drift: Int64? = 0
    }

    private func judge(_ books: Books, answers: [Int64] = []) async throws -> Audit {
        var load = LoadFigures()
        load.confirmedOrders = answers
        return try await Audit.run(books, product: 1, load: load)
    }

    @Test func soundBooksPass() async throws {
        let audit = try await judge(Books(), answers: [4, 1, 3, 2])
        #expect(audit.passes)
        #expect(audit.line == "AUDIT PASS initial=4 confirmed=4 oversold=0 leaked=0 unmatched=0 pending=0 drift=0")
    }

    @Test func restocksReturnsRetriesAndFailuresAreSound() async throws {
        var books = Books()
        books.row = ProductRow(stock: 3, fence: 3, initialStock: 4)
        books.restocked = 2
        books.redis = RedisStock(counter: 3, fence: 3, pending: 0)
        books.orderRows[0].status = "CANCELLED"
        books.ledgerRows[0] = LedgerRow(orderID: 1, decrements: 1, decremented: 1, increments: 1, incremented: 1)
        // Compensated, then run again under another key.
        books.ledgerRows[1] = LedgerRow(orderID: 2, decrements: 2, decremented: 2, increments: 1, incremented: 1)
        books.orderRows.append(OrderRow(id: 5, status: "FAILED", quantity: 9))
        let audit = try await judge(books, answers: [1, 2, 3])
        #expect(audit.passes, "\(audit.findings)")
        #expect(audit.confirmed == 3)
    }

    static let breaks: [Break] = [
        Break(testDescription: "a ledger row was deleted", apply: { $0.ledgerRows.remove(at: 1) }, leaked: 1, unmatched: 1),
        Break(
            testDescription: "a decrement was written twice",
            apply: { $0.ledgerRows[0] = LedgerRow(orderID: 1, decrements: 2, decremented: 2) },
            oversold: 1,
            leaked: 1,
            unmatched: 1
        ),
        Break(
            testDescription: "a decrement has the wrong quantity",
            apply: { $0.ledgerRows[2].decremented = 2 },
            oversold: 1,
            leaked: 1,
            unmatched: 1
        ),
        Break(testDescription: "an order was deleted", apply: { $0.orderRows.remove(at: 3) }, unmatched: 1),
        Break(testDescription: "an order failed without giving back", apply: { $0.orderRows[1].status = "FAILED" }, unmatched: 1),
        Break(testDescription: "an order was cancelled without giving back", apply: { $0.orderRows[1].status = "CANCELLED" }, unmatched: 1),
        Break(
            testDescription: "an order was cancelled that never decremented",
            apply: {
                $0.orderRows.append(OrderRow(id: 9, status: "CANCELLED", quantity: 1))
            },
            unmatched: 1
        ),
        Break(
            testDescription: "a unit was confirmed that nobody decremented",
            apply: { $0.orderRows.append(OrderRow(id: 9, status: "CONFIRMED", quantity: 1)) },
            oversold: 1,
            unmatched: 1
        ),
        Break(
            testDescription: "a unit was sold beyond the stock",
            apply: {
                $0.orderRows.append(OrderRow(id: 9, status: "CONFIRMED", quantity: 1))
                $0.ledgerRows.append(LedgerRow(orderID: 9, decrements: 1, decremented: 1))
                $0.row?.stock = -1
                $0.redis?.counter = -1
            },
            oversold: 1
        ),
        Break(
            testDescription: "a unit vanished",
            apply: {
                $0.row?.initialStock = 5
            },
            leaked: 1
        ),
        Break(
            testDescription: "a unit came from nowhere",
            apply: {
                $0.row?.stock = 1
                $0.redis?.counter = 1
            },
            leaked: 1
        ),
        Break(testDescription: "a decrement names no order", apply: { $0.decrementsWithoutOrder = 2 }, unmatched: 2),
        Break(
            testDescription: "an order is still PENDING",
            apply: {
                $0.orderRows.append(OrderRow(id: 9, status: "PENDING", quantity: 1))
            },
            pending: 1
        ),
        Break(testDescription: "a reservation is still pending", apply: { $0.redis?.pending = 3 }, pending: 3),
        Break(testDescription: "Redis has units that are not there", apply: { $0.redis?.counter = 2 }, drift: 2),
        Break(testDescription: "Redis lacks units", apply: { $0.redis?.counter = -1 }, drift: -1),
        Break(testDescription: "Redis holds no counter", apply: { $0.redis?.counter = nil }, drift: nil),
        Break(testDescription: "Redis is under an older fence", apply: { $0.redis?.fence = 2 }),
        Break(testDescription: "Redis has no fence", apply: { $0.redis?.fence = nil }),
        Break(testDescription: "Redis does not answer", apply: { $0.redis = nil }, drift: nil),
        Break(testDescription: "a buyer's order is not there", apply: { _ in }, answers: [1, 77], unmatched: 1, lost: 1),
        Break(testDescription: "a buyer's order before the first is not there", apply: { _ in }, answers: [0, 1], unmatched: 1, lost: 1),
        Break(
            testDescription: "a buyer's order failed",
            apply: { $0.orderRows.append(OrderRow(id: 5, status: "FAILED", quantity: 1)) },
            answers: [5],
            unmatched: 1,
            lost: 1
        ),
        Break(testDescription: "two buyers got the same order", apply: { _ in }, answers: [2, 2], unmatched: 1, lost: 1),
    ]

    @Test(arguments: breaks)
    func everyBreakIsFound(_ broken: Break) async throws {
        var books = Books()
        broken.apply(&books)
        let audit = try await judge(books, answers: broken.answers)
        #expect(!audit.passes)
        #expect(!audit.findings.isEmpty)
        #expect(audit.line.hasPrefix("AUDIT FAIL "))
        #expect(audit.oversold == broken.oversold)
        #expect(audit.leaked == broken.leaked)
        #expect(audit.unmatched == broken.unmatched)
        #expect(audit.lostAnswers == broken.lost)
        #expect(audit.pending == broken.pending)
        #expect(audit.drift == broken.drift)
    }

    @Test func aRefusalThatTheOrdersDoNotBearOutIsFound() async throws {
        var books = Books()
        books.orderRows = [
            OrderRow(id: 1, status: "FAILED", quantity: 1), OrderRow(id: 2, status: "CONFIRMED", quantity: 1),
            OrderRow(id: 3, status: "FAILED", quantity: 1),
        ]
        books.ledgerRows = [LedgerRow(orderID: 2, decrements: 1, decremented: 1)]
        var fine = OrderMatching()
        try await fine.compare(books, product: 1, confirmedAnswers: [2], refusedAnswers: [3, 1])
        #expect(fine.unmatched == 0, "\(fine.examples)")
        var wrong = OrderMatching()
        try await wrong.compare(books, product: 1, confirmedAnswers: [2], refusedAnswers: [1, 1, 2, 9])
        #expect(wrong.unmatched == 3, "one told twice, one that is CONFIRMED, one that is not there: \(wrong.examples)")
        #expect(wrong.lostAnswers == 0)
    }

    @Test func aMissingProductIsNoPass() async {
        var books = Books()
        books.row = nil
        await #expect(throws: PlanError.self) { try await judge(books) }
    }

    @Test(arguments: [1, 2, 3, 7, 100])
    func pagesOfAnySizeCompareTheSame(pageSize: Int) async throws {
        var books = Books()
        books.orderRows = stride(from: 1, through: 50, by: 1).map { OrderRow(id: Int64($0), status: "CONFIRMED", quantity: 1) }
        books.ledgerRows = stride(from: 3, through: 52, by: 1).map { LedgerRow(orderID: Int64($0), decrements: 1, decremented: 1) }
        var matching = OrderMatching()
        try await matching.compare(books, product: 1, confirmedAnswers: Array(1...52), pageSize: pageSize)
        // 1 and 2 lack a decrement, 51 and 52 lack an order; the buyers of all four were told CONFIRMED, which the order database bears out for the first two.
        #expect(matching.unmatched == 4)
        #expect(matching.lostAnswers == 2 && matching.wrongAnswers == 4)
        #expect(matching.examples.count == 4)
    }

    @Test func examplesAreBoundedAndTheRestIsCounted() async throws {
        var books = Books()
        books.ledgerRows = []
        books.orderRows = (1...30).map { OrderRow(id: $0, status: "CONFIRMED", quantity: 1) }
        let audit = try await judge(books)
        #expect(audit.unmatched == 30)
        #expect(audit.findings.count { $0.hasPrefix("  order ") } == OrderMatching.exampleLimit)
        #expect(audit.findings.contains("  … 20 more"))
    }

    @Test func unsortedRowsProveNothing() async {
        var books = Books()
        books.orderRows.swapAt(0, 1)
        await #expect(throws: OrderMatching.UnsortedPage.self) { try await judge(books) }
    }

    @Test func settlingEndsWhenAllIsQuietAndIsBounded() async throws {
        #expect(try await Audit.settle(Books(), product: 1, bound: .seconds(60), interval: .milliseconds(1)))
        var busy = Books()
        busy.redis?.pending = 1
        #expect(try await Audit.settle(busy, product: 1, bound: .milliseconds(20), interval: .milliseconds(1)) == false)
    }

    // MARK: Answers and their keys

    @Test func keysAndNumbersAreTheSame() {
        var told = ToldAnswers()
        told.run = "sale-1-x-2"
        for (index, count) in [(0, 1), (3, 77), (255, 1 << 39)] {
            let number = ToldAnswers.number(index: index, count: count)
            #expect(told.key(number) == "sale-1-x-2-\(index)-\(count)")
            #expect(told.number(of: told.key(number)) == number)
        }
        for key in [
            "", "sale-1-x-2", "sale-1-x-2-", "sale-1-x-2-1", "sale-1-x-2-1-2-3", "sale-1-x-3-1-2", "sale-1-x-2-1--2", "sale-1-x-2-a-1",
        ] {
            #expect(told.number(of: key) == nil, "\(key)")
        }
    }

    @Test func soldOutAnswersAreLookedUpByTheirKeys() async throws {
        var told = ToldAnswers()
        told.run = "r"
        for count in [2, 3, 4, 9] { told.tellSoldOut(number: ToldAnswers.number(index: 0, count: count)) }
        var books = Books()
        for index in books.orderRows.indices { books.orderRows[index].key = "r-0-\(index + 1)" }
        books.orderRows[2].status = "FAILED"
        books.orderRows[3].key = "another-0-4"
        var matching = OrderMatching()
        try await matching.compare(books, product: 1, confirmedAnswers: [], told: told)
        #expect(matching.offenders.map(\.order) == [2], "order 3 failed, order 4 is another run's, nobody has 9")
    }

    @Test func severalProductsAreJudgedTogetherAndNoneHidesAnother() async throws {
        var more = Books()
        more.redis?.counter = 2
        var fewer = Books()
        fewer.redis?.counter = -2
        var load = LoadFigures()
        load.confirmedOrders = [1, 4, 2, 3]
        load.confirmedProducts = [0, 1, 1, 0]
        #expect(load.told(ofProduct: 1).confirmed == [4, 2] && load.told(ofProduct: 0).confirmed == [1, 3])
        let parts = [
            (product: Int64(7), audit: try await Audit.run(more, product: 7, load: load, place: 0)),
            (product: Int64(8), audit: try await Audit.run(fewer, product: 8, load: load, place: 1)),
        ]
        let audit = Audit(of: parts, load: load)
        #expect(!audit.passes && audit.drift == 4 && audit.initial == 8 && audit.confirmed == 8 && audit.answersChecked == 4)
        #expect(audit.findings.contains { $0.hasPrefix("product 8: drift") })
        #expect(try await Audit(of: [(7, Audit.run(Books(), product: 7, load: load, place: 1))], load: load).passes)
    }

    /// An order of which two things are wrong is one order, and the tenth example is of the tenth order.
    @Test func anOrderIsCountedOnce() async throws {
        var books = Books()
        for index in books.orderRows.indices { books.orderRows[index].status = "FAILED" }
        let audit = try await judge(books, answers: [1, 2, 3, 4])
        #expect(audit.unmatched == 4 && audit.lostAnswers == 4 && audit.wrongAnswers == 4)
        #expect(
            audit.findings.contains(
                "  order 2: FAILED, the ledger has 1 decrements (1 units), 0 increments (0 units); the buyer was told CONFIRMED, the order is FAILED"
            ),
            "\(audit.findings)"
        )
        var many = OrderMatching()
        for id in 1...12 {
            many.add(order: OrderRow(id: Int64(id), status: "CONFIRMED", quantity: 1), ledger: nil)
            many.addLostAnswer(order: Int64(id), because: "x")
        }
        #expect(many.unmatched == 12 && many.examples.count == 10 && many.exampleOrders == 10)
    }

    /// The order database agrees with the buyer, the ledger has nothing of it: the answer is not borne out.
    @Test func aConfirmedAnswerWithoutADecrementIsAnOffender() async throws {
        var books = Books()
        books.ledgerRows.remove(at: 1)
        books.orderRows[1].buyer = "buyer-9"
        let audit = try await judge(books, answers: [1, 2, 3, 4])
        #expect(audit.unmatched == 1 && audit.lostAnswers == 0 && audit.wrongAnswers == 1)
        let offender = try #require(audit.offenders.first)
        #expect(
            offender.order == 2 && offender.told == "CONFIRMED" && offender.buyer == "buyer-9" && offender.found.contains("0 decrements")
        )
        #expect(try await judge(books, answers: [1, 3, 4]).wrongAnswers == 0, "nobody was told of it")
    }

    /// Who was told is known also where the order is not there.
    @Test func theBuyerOfALostAnswerIsNamed() async throws {
        var load = LoadFigures()
        load.told.run = "run"
        load.confirmedOrders = [77]
        load.told.tellConfirmed(77, number: ToldAnswers.number(index: 0, count: 3), buyer: 4711)
        var whole = LoadFigures()
        whole.add(load)
        let audit = try await Audit.run(Books(), product: 1, load: whole)
        #expect(audit.offenders.first?.buyer == "buyer-4711" && audit.offenders.first?.key == "run-0-3")
    }

    /// Each product is looked at twice, and no product waits for another: the rounds are those of one.
    @Test func manyProductsComeToRestSideBySide() async throws {
        var looks: [Int64: Int] = [:]
        let rest = try await Audit.rest(of: Array(1...200), bound: .seconds(60), interval: .milliseconds(10)) { product in
            looks[product, default: 0] += 1
            // One of them is restless at first.
            return product == 7 && looks[7] ?? 0 < 3 ? nil : 1
        }
        #expect(rest && looks.count == 200 && looks.allSatisfy { $0.value == ($0.key == 7 ? 4 : 2) })
        let began = ContinuousClock.now
        #expect(try await Audit.rest(of: Array(1...200), bound: .seconds(600), isOver: { true }) { _ in 1 } == false)
        #expect(ContinuousClock.now - began < .seconds(60))
    }

    @Test func offendersAreBounded() {
        var matching = OrderMatching()
        for id in 1...2_000 { matching.addLostAnswer(order: Int64(id), because: "there is no such order") }
        #expect(matching.offenders.count == OrderMatching.offenderLimit && matching.unmatched == 2_000)
    }
}

@Suite("Fairness")
struct FairnessTests {
    private func order(_ arrivals: [(at: Int64, won: Bool)]) -> Double? {
        var fairness = Fairness()
        for (index, arrival) in arrivals.enumerated() { fairness.add(arrivedAt: arrival.at, buyer: index, hasWon: arrival.won) }
        return fairness.order
    }

    @Test func firstComeFirstServedIsOneAndALotteryIsAHalf() throws {
        #expect(order((0..<100).map { ($0, $0 < 30) }) == 1)
        #expect(order((0..<100).map { ($0, $0 >= 30) }) == 0)
        #expect(order((0..<100).map { (7, $0 < 30) }) == 0.5, "all at once: nobody was first")
        #expect(abs(try #require(order((0..<10_000).map { ($0, $0 % 3 == 0) })) - 0.5) < 0.01)
        #expect(order([(0, true), (1, true)]) == nil && order([]) == nil)
        // One of four pairs is the wrong way round.
        #expect(order([(0, true), (1, false), (2, true), (3, false)]) == 0.75)
    }

    /// Ten products that are sold out one after the other, each first come, first served.
    @Test func eachProductHasAnOrderOfItsOwn() {
        var fairness = Fairness(products: 10)
        for product in 0..<10 {
            for step in 0..<20 {
                fairness.add(arrivedAt: Int64(product * 1000 + step * 20), buyer: step, product: product, hasWon: step < 10)
            }
        }
        #expect(fairness.order == 1)
        var whole = Fairness(products: 10)
        whole.add(fairness)
        #expect(whole.order == 1)
        #expect(fairness.line(promise: "accepted")?.contains("who was accepted came before who was not in 100.0 % of pairs") == true)
    }

    @Test func theBusiestHundredthIsToldWithWhatItGot() throws {
        var parts = [Fairness(), Fairness()]
        for buyer in 1...200 { parts[buyer % 2].add(arrivedAt: 5, buyer: buyer, hasWon: buyer <= 40) }
        for _ in 0..<100 { parts[0].add(arrivedAt: 6, buyer: 7, hasWon: true) }
        for _ in 0..<100 { parts[1].add(arrivedAt: 6, buyer: 9, hasWon: false) }
        var fairness = parts[0]
        fairness.add(parts[1])
        let busiest = try #require(fairness.busiest)
        #expect(busiest.buyers == 2 && busiest.sent == 202.0 / 400 && busiest.won == 102.0 / 140)
        #expect(fairness.line()?.contains("sent 50.5 % of the orders and got 72.9 %") == true)
        fairness.add(arrivedAt: 0, buyer: 3_000_000, hasWon: true)
        #expect(fairness.busiest == nil, "buyers that share a place are no buyers")
    }
}
