import Dispatch
import Eventually
import NIOCore
import NIOHTTP1
import PostgresClient
import PrivateServers
import ServerKit
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

@Suite("Reads", .serialized, .timeLimit(.minutes(2)))
struct ReadTests {
    /// Makes so many orders, ids from 1: every fifth FAILED, all of one buyer but every seventh.
    private func fill(_ orders: Int64, _ bed: TestBed) async throws {
        _ = try await bed.pool.query(
            """
            insert into orders (id, product_id, buyer_id, quantity, unit_price, status, fail_reason)
            select n, 1, case when n % 7 = 0 then 'u-7' else 'u-1' end, 1, 900, case when n % 5 = 0 then 'FAILED' else 'CONFIRMED' end,
              case when n % 5 = 0 then 'INSUFFICIENT_STOCK' end
            from generate_series(1::bigint, $1) n
            """,
            [.int(orders)]
        )
    }

    /// Follows `next` to the end.
    private func all(_ path: String, _ bed: TestBed, admin: Bool = false) async throws -> (ids: [Int64], answers: Int) {
        var (ids, answers): ([Int64], Int) = ([], 0)
        var after = ""
        while answers < 100 {
            let answer = try await bed.send(.GET, path + after, admin: admin)
            try #require(answer.status == 200, "\(answer)")
            answers += 1
            guard case .array(let content) = answer["content"] else { throw TestBed.Failure(description: "no content: \(answer)") }
            for row in content { if case .int(let id)? = row["id"] { ids.append(id) } }
            guard case .int(let next) = answer["next"] else { return (ids, answers) }
            after = "&after=\(next)"
        }
        throw TestBed.Failure(description: "\(path) has no end")
    }

    @Test("lists go on by key, each answer in bounded work, and a page by its number reaches what was walked")
    func byKey() async throws {
        try await TestBed.run(settings: ["LIST_BOUND": "10"]) { bed in
            try await fill(43, bed)
            let expected = Array((1...43).reversed().map { Int64($0) })
            #expect(try await all("/orders?size=6", bed).ids == expected)
            #expect(try await all("/orders?size=6&buyerId=u-7", bed).ids == expected.filter { $0 % 7 == 0 })
            let failed = try await all("/orders?status=FAILED&size=6", bed)
            #expect(failed.ids == expected.filter { $0 % 5 == 0 })
            #expect(failed.answers == 5)
            #expect(try await all("/orders?status=CANCELLED", bed).ids == [])

            let page = try await bed.send(.GET, "/orders?size=6&page=1")
            #expect(page["totalElements"] == 10 && page["isTotalExact"] == false && page["totalPages"] == 2 && page["next"] == 34)
            let exact = try await bed.send(.GET, "/orders?buyerId=u-7&size=2&page=9")
            #expect(exact.status == 200 && exact["totalElements"] == 6 && exact["isTotalExact"] == true && exact["content"] == .array([]))
            let deep = try await bed.send(.GET, "/orders?size=6&page=2")
            #expect(deep.status == 400 && deep["details"]["field"] == "page" && deep["details"]["maximumRows"] == 10)
            #expect(try await bed.send(.GET, "/orders?page=0&after=9")["details"]["field"] == "page")

            // A user's list has no room for `next`: it is the last id shown.
            var (ids, after): ([Int64], String) = ([], "")
            while ids.count < 100 {
                let answer = try await bed.send(.GET, "/u-1/orders?size=8" + after)
                guard case .array(let rows) = answer.json else { throw TestBed.Failure(description: "no list: \(answer)") }
                let shown = rows.compactMap { if case .int(let id)? = $0["orderId"] { id } else { nil } }
                guard let last = shown.last else { break }
                ids += shown
                after = "&after=\(last)"
            }
            #expect(ids == expected.filter { $0 % 7 != 0 })
            #expect(try await bed.send(.GET, "/u-1/orders?size=8&page=2").status == 400)
        }
    }

    @Test("the outbox is listed by key")
    func outbox() async throws {
        try await TestBed.run(settings: ["LIST_BOUND": "10"]) { bed in
            _ = try await bed.pool.query(
                """
                insert into outbox (id, lane, topic, order_ids, payload, status)
                select n, 16, 'order.created', '{1}', '{}', case when n in (3, 30) then 'DEAD' when n = 4 then 'SENT' else 'NEW' end
                from generate_series(1, 31) n
                """
            )
            func ids(_ status: String) async throws -> [Int64] {
                try await all("/internal/outbox?size=7\(status)", bed, admin: true).ids
            }
            #expect(try await ids("") == (1...31).reversed())
            #expect(try await ids("&status=DEAD") == [30, 3])
            #expect(try await ids("&status=SENT") == [4])
            // The dead have an index: all of them are known at once.
            let dead = try await bed.send(.GET, "/internal/outbox?status=DEAD", admin: true)
            #expect(dead["totalElements"] == 2 && dead["isTotalExact"] == true)
        }
    }

    @Test("readers that hang take no connection of what settles, cancels and says ready, and are 503 with Retry-After")
    func apart() async throws {
        // Another table is locked, which lists alone read here.
        try await TestBed.run(settings: ["READ_TIMEOUT": "3s", "ORDER_DATABASE_CONNECTIONS": "2"]) { bed in
            let id = try await bed.place().orderID
            _ = try await bed.pool.query("create table slow (id bigint)")
            // Whoever reads under the name of the readers waits for a lock.
            _ = try await bed.pool.query(
                """
                create function wait_if_reader() returns boolean language plpgsql volatile as $$
                begin
                  if current_setting('application_name') like '%-reads' then perform 1 from slow; end if;
                  return true;
                end $$
                """
            )
            _ = try await bed.pool.query("alter table orders rename to orders_stored")
            _ = try await bed.pool.query("create view orders as select * from orders_stored where wait_if_reader()")
            let released = DispatchSemaphore(value: 0)
            let (locked, isLocked) = AsyncStream.makeStream(of: Void.self)
            var configuration = try PostgresConfiguration.patient(bed.databaseURL)
            configuration.idleInTransactionTimeout = .zero
            let holder = PostgresPool(configuration: configuration, maximumConnections: 1)
            let holding = Task {
                try await holder.transaction(timeout: .seconds(60)) { transaction in
                    try transaction.execute(script: "lock table slow in access exclusive mode")
                    isLocked.yield()
                    released.wait()
                }
            }
            for await _ in locked { break }
            // They ask again and again: a lock is waited for two seconds, and then the answer comes.
            let readers = Readers()
            let asking = Task {
                await withTaskGroup(of: Void.self) { group in
                    for n in 0..<16 {
                        let path = ["/orders", "/orders?status=FAILED", "/u-001/orders", "/orders/\(id)"][n % 4]
                        group.addTask {
                            while !readers.isOver.load(ordering: .relaxed) {
                                do {
                                    let answer = try await bed.send(.GET, path)
                                    let isRight = answer.status == 503 && answer.headers.first(name: "retry-after") != nil
                                    readers.add(isRight ? nil : "\(path): \(answer)")
                                } catch {
                                    readers.add("\(path): \(error)")
                                }
                            }
                        }
                    }
                }
            }
            let waiting = "select least(count(*), 4) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            let deadline = ContinuousClock.now + .seconds(60)
            try await eventually("four readers wait; \(readers.answers) answers, among them \(readers.wrong)") {
                try await bed.count(waiting) >= 4
            }
            try await Lateness.watched { late in
                var looks = 0
                while looks < 3 {
                    try #require(ContinuousClock.now < deadline)
                    let before = late.sum
                    let status = try await bed.send(.GET, "/readyz").status
                    // A check has a second: one that this machine was late with says nothing of the readers.
                    if late.sum - before < .milliseconds(500) {
                        #expect(status == 200)
                        looks += 1
                    }
                    try await Task.sleep(for: .milliseconds(300))
                }
            }
            #expect(try await bed.send(.POST, "/orders/\(id)/cancel")["status"] == "CANCELLED")
            readers.isOver.store(true, ordering: .relaxed)
            await asking.value
            #expect(readers.answers > 0 && readers.wrong == [])
            released.signal()
            try await holding.value
            await holder.shutdown()
            #expect(try await bed.send(.GET, "/orders/\(id)").status == 200)
        }
    }

    @Test("the age of the oldest open transaction is in the metrics")
    func oldestTransaction() async throws {
        try await TestBed.run { bed in
            let released = DispatchSemaphore(value: 0)
            let (open, isOpen) = AsyncStream.makeStream(of: Void.self)
            var configuration = try PostgresConfiguration.patient(bed.databaseURL)
            configuration.idleInTransactionTimeout = .zero
            let holder = PostgresPool(configuration: configuration, maximumConnections: 1)
            let holding = Task {
                try await holder.transaction(timeout: .seconds(60)) { transaction in
                    try transaction.execute(script: "set transaction isolation level repeatable read; select count(*) from orders")
                    isOpen.yield()
                    released.wait()
                }
            }
            for await _ in open { break }
            // A server looks as soon as it runs.
            let watching = try await bed.start()
            func age(_ server: TestBed.Server) async throws -> Double? {
                let answer = try await server.admin.call(.init(method: .GET, path: "/metrics"), timeout: .seconds(20)).get()
                let lines = String(buffer: answer.body).split(separator: "\n")
                let name = "stockgate_database_oldest_transaction_seconds "
                return lines.first { $0.hasPrefix(name) }.flatMap { Double($0.dropFirst(name.count)) }
            }
            #expect(try await eventuallyFound("the age of the oldest transaction") { try await age(watching) } > 0)
            released.signal()
            try await holding.value
            await holder.shutdown()
            await watching.stop()
        }
    }

    /// What readers were answered.
    private final class Readers: Sendable {
        let isOver = Atomic<Bool>(false)
        private let seen = Mutex<(answers: Int, wrong: [String])>((0, []))
        var answers: Int { seen.withLock { $0.answers } }
        var wrong: [String] { seen.withLock { $0.wrong } }

        func add(_ wrong: String?) {
            self.seen.withLock { seen in
                seen.answers += 1
                if let wrong, seen.wrong.count < 3 { seen.wrong.append(wrong) }
            }
        }
    }
}
