import PrivateServers
import Testing

@testable import PostgresClient

@Suite struct SessionTests {
    @Test func typesComeBackAsTheyWent() throws {
        let session = PostgresSession(configuration: try SharedServer.configuration())
        let row = try session.query(
            """
            SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::bigint, 7::int4, 8::int2, \
            '00112233-4455-6677-8899-aabbccddeeff'::uuid, cardinality($13), $14::text
            """,
            [
                .int(.min), .text("grüße 🛒"), .bool(true), .double(-0.5), .bytes([0, 255]), .ints([1, -2, .max]), .texts(["a", "", "ü"]),
                .optionalTexts(["x", nil]), .timestampMicros(1_700_000_000_123_456), .json(#"{"a": 1}"#), .ints([]), .null,
                .bools([true, false]), .optionalText(nil),
            ]
        ).one()
        #expect(try row.decode(0, as: Int64.self) == .min)
        #expect(try row.decode(1, as: String.self) == "grüße 🛒")
        #expect(try row.decode(2, as: Bool.self))
        #expect(try row.decode(3, as: Double.self) == -0.5)
        #expect(try row.decode(4, as: [UInt8].self) == [0, 255])
        #expect(try row.decode(5, as: [Int64].self) == [1, -2, .max])
        #expect(try row.decode(6, as: [String?].self) == ["a", "", "ü"])
        #expect(try row.decode(7, as: [String?].self) == ["x", nil])
        #expect(try row.decode(8, as: PostgresTimestamp.self).microsecondsSinceEpoch == 1_700_000_000_123_456)
        #expect(try row.decode(9, as: String.self) == #"{"a": 1}"#)
        #expect(try row.decode(10, as: [Int64].self).isEmpty)
        #expect(try row.decode(11, as: Int64?.self) == nil)
        #expect(try row.isNull(11))
        #expect(try row.decode(12, as: Int64.self) == 7)
        #expect(try row.decode(13, as: Int64.self) == 8)
        #expect(try row.decode(14, as: String.self) == "00112233-4455-6677-8899-aabbccddeeff")
        #expect(try row.decode(15, as: Int64.self) == 2)
        #expect(try row.decode(16, as: String?.self) == nil)
        #expect(throws: PostgresError.self) { try row.decode(1, as: Int64.self) }
        #expect(throws: PostgresError.self) { try row.decode(11, as: Int64.self) }
        #expect(throws: PostgresError.self) { try row.decode(99, as: Int64.self) }
    }

    @Test func timestampIsTheServersOwn() throws {
        let session = PostgresSession(configuration: try SharedServer.configuration())
        let row = try session.query("SELECT $1 = '2024-02-29 12:00:00+00'::timestamptz", [.timestampMicros(1_709_208_000_000_000)]).one()
        #expect(try row.decode(0, as: Bool.self))
    }

    /// A row may hold what no clock shows; what cannot be counted in 64 bits of microseconds since 1970 is refused with words.
    @Test func timesAtTheirEndsAreReadOrRefused() throws {
        let session = PostgresSession(configuration: try SharedServer.configuration())
        for text in ["infinity", "-infinity", "294276-12-31 23:59:59.999999+00"] {
            let rows = try session.query("SELECT $1::timestamptz", [.text(text)])
            let error = #expect(throws: PostgresError.self, "\(text)") {
                try rows.one().decode(0, as: PostgresTimestamp.self).microsecondsSinceEpoch
            }
            #expect(error?.code == .decoding)
            #expect(throws: PostgresError.self) { try rows.one().decode(0, as: PostgresTimestamp?.self).map(\.microsecondsSinceEpoch) }
        }
        let early = try session.query("SELECT '4713-01-01 00:00:00+00 BC'::timestamptz, '292277-01-01 00:00:00+00'::timestamptz").one()
        #expect(try early.decode(0, as: PostgresTimestamp.self).microsecondsSinceEpoch == -210_863_520_000_000_000)
        #expect(try early.decode(1, as: PostgresTimestamp.self).microsecondsSinceEpoch > 0)
        // On the way out: what PostgreSQL cannot hold is refused by it, not taken for another time.
        for micros in [Int64.min, Int64.min + 1, -300_000_000_000_000_000] {
            #expect(throws: PostgresError.self, "\(micros)") { try session.query("SELECT $1 + interval '0'", [.timestampMicros(micros)]) }
            #expect(throws: PostgresError.self, "\(micros)") { try session.query("SELECT $1", [.timestampsMicros([0, micros])]) }
        }
        let whole = try session.query("SELECT $1, $2", [.ints([.min, .max]), .int(.min)]).one()
        #expect(try whole.decode(0, as: [Int64].self) == [.min, .max])
        #expect(try whole.decode(1, as: Int64.self) == .min)
    }

    @Test func rowsAreLentWithoutCopying() throws {
        let session = PostgresSession(configuration: try SharedServer.configuration())
        var sum: Int64 = 0
        let affected = try session.query("SELECT v, v * 2 FROM unnest($1) AS v", [.ints(Array(1...1000))]) { (row) throws(PostgresError) in
            sum += try row.decode(0, as: Int64.self) + row.decode(1, as: Int64.self)
        }
        #expect(affected == 1000)
        #expect(sum == 3 * 500_500)
    }

    @Test func whatIsPostponedIsDoneOnceWhileTheNextStatementRuns() throws {
        var configuration = try SharedServer.configuration()
        configuration.lockTimeout = .seconds(60)
        configuration.statementTimeout = .seconds(60)
        configuration.callTimeout = .seconds(70)
        let session = PostgresSession(configuration: configuration)
        try session.connect()
        let other = PostgresSession(configuration: configuration)
        _ = try other.query("SELECT 1 FROM pg_advisory_lock(471101)")
        var done: [String] = []
        session.postpone { done.append("first") }
        session.postpone {
            done.append("second")
            _ = try? other.query("SELECT 1 FROM pg_advisory_unlock(471101)")
        }
        #expect(done.isEmpty, "nothing waits yet")
        // Only the second one ends the wait for the lock: it is done before the answer, not after it.
        #expect(try session.query("SELECT 1 FROM pg_advisory_lock(471101)").count == 1)
        #expect(done == ["first", "second"])
        _ = try session.query("SELECT 1")
        session.doPostponed()
        #expect(done.count == 2, "once")
        // Work that leaves work: that is for the next time.
        session.postpone { session.postpone { done.append("third") } }
        session.doPostponed()
        #expect(done.count == 2)
        session.doPostponed()
        #expect(done == ["first", "second", "third"])
    }

    @Test func whatIsPostponedDoesNotWaitForAServerThatIsAway() throws {
        let session = PostgresSession(configuration: try PostgresConfiguration(url: "postgresql://127.0.0.1:1/away"))
        var isDone = false
        session.postpone { isDone = true }
        #expect(throws: PostgresError.self) { try session.query("SELECT 1") }
        #expect(isDone)
    }

    @Test func serverErrorKeepsTheConnectionAndNamesTheConstraint() throws {
        let session = PostgresSession(configuration: try SharedServer.configuration())
        try session.execute(script: "CREATE TEMP TABLE t (n bigint CONSTRAINT positive CHECK (n >= 0))")
        let error = #expect(throws: PostgresError.self) { try session.query("INSERT INTO t VALUES ($1)", [.int(-1)]) }
        #expect(error?.code == .server(sqlState: "23514"))
        #expect(error?.constraint == "positive")
        #expect(error?.isOutcomeUnknown == false)
        #expect(try session.query("INSERT INTO t VALUES ($1), (2)", [.int(1)]).rowsAffected == 2)
        #expect(session.connectionsOpened == 1)
    }

    @Test func transactionCommitsOrRollsBack() throws {
        let session = PostgresSession(configuration: try SharedServer.configuration())
        try session.execute(script: "CREATE TEMP TABLE t (n bigint PRIMARY KEY)")
        struct Refusal: Error {}
        #expect(throws: Refusal.self) {
            try session.transaction { transaction in
                _ = try transaction.query("INSERT INTO t VALUES (1)")
                throw Refusal()
            }
        }
        #expect(try session.query("SELECT n FROM t").isEmpty)
        try session.transaction { transaction in _ = try transaction.query("INSERT INTO t VALUES (1)") }
        #expect(try session.query("SELECT n FROM t").count == 1)
        // A failed statement whose error the body swallows must not look committed.
        let swallowed = #expect(throws: PostgresError.self) {
            try session.transaction { transaction in
                _ = try? transaction.query("INSERT INTO t VALUES (1)")
            }
        }
        #expect(swallowed?.sqlState == "25P02")
        let ended = #expect(throws: PostgresError.self) { try session.transaction { _ = try $0.query(" Commit") } }
        #expect(ended?.code == .misuse)
        #expect(session.connectionsOpened == 1)
    }

    @Test func statementCacheIsBoundedAndSurvivesSchemaChange() throws {
        var configuration = try SharedServer.configuration()
        configuration.preparedStatements = 3
        let session = PostgresSession(configuration: configuration)
        for number in 0..<10 {
            #expect(try session.query("SELECT \(number)::bigint + $1", [.int(1)]).one().decode(0, as: Int64.self) == Int64(number + 1))
        }
        #expect(session.preparedStatementCount == 3)
        #expect(try session.query("SELECT count(*) FROM pg_prepared_statements").one().decode(0, as: Int64.self) == 3)
        // The same text with a null first: its type is the server's choice, and must not stick.
        #expect(try session.query("SELECT coalesce($1, 5::int4)", [.null]).one().decode(0, as: Int64.self) == 5)
        #expect(try session.query("SELECT coalesce($1, 5::int4)", [.int(6)]).one().decode(0, as: Int64.self) == 6)

        let table = "changing_\(UInt32.random(in: 0 ... .max))"
        try session.execute(script: "CREATE TABLE \(table) (a bigint)")
        #expect(try session.query("SELECT * FROM \(table)").columnNames == ["a"])
        try session.execute(script: "ALTER TABLE \(table) ADD b bigint")
        #expect(try session.query("SELECT * FROM \(table)").columnNames == ["a", "b"])
        try session.execute(script: "DROP TABLE \(table)")
    }

    @Test func serverSideBoundAnswersAndIsKnown() throws {
        var configuration = try SharedServer.configuration()
        configuration.statementTimeout = .milliseconds(100)
        let session = PostgresSession(configuration: configuration)
        let error = #expect(throws: PostgresError.self) { try session.query("SELECT pg_sleep(60)") }
        #expect(error?.code == .server(sqlState: "57014"))
        #expect(error?.isTransient == true)
    }

    @Test func clientSideBoundIsUnknownOutsideATransactionAndKnownInside() throws {
        let session = PostgresSession(configuration: try SharedServer.configuration())
        try session.connect()
        let start = ContinuousClock.now
        let error = #expect(throws: PostgresError.self) { try session.query("SELECT pg_sleep(60)", timeout: .milliseconds(150)) }
        #expect(error?.code == .timedOut(outcomeUnknown: true))
        #expect(ContinuousClock.now - start < .seconds(30))
        #expect(!session.isConnected)
        let inside = #expect(throws: PostgresError.self) {
            try session.transaction { _ = try $0.query("SELECT pg_sleep(60)", timeout: .milliseconds(150)) }
        }
        #expect(inside?.code == .timedOut(outcomeUnknown: false))
        #expect(try session.query("SELECT 1").one().decode(0, as: Int64.self) == 1)
    }

    @Test func noPasswordIsShown() throws {
        let configuration = try PostgresConfiguration(url: "postgresql://buyer:hunter2@db.example:5433/shop")
        var dumped = ""
        dump(configuration, to: &dumped)
        for text in ["\(configuration)", String(reflecting: configuration), dumped] {
            #expect(!text.contains("hunter2"))
            #expect(text.contains("buyer@db.example:5433/shop"))
        }
        let error = #expect(throws: PostgresError.self) { try PostgresConfiguration(url: "password=hunter2 bro ken") }
        #expect(error?.code == .invalidConfiguration)
        #expect(error?.message.contains("hunter2") == false)
    }
}
