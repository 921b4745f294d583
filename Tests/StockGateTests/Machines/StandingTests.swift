import PostgresClient
import RedisClient
import Testing

@testable import StockGate

@Suite("Where a product stands: every event")
struct StandingTests {
    @Test("an outage owes each product an install, once, and a look where something was heard since")
    func needs() {
        var standing = Standing()
        #expect(standing.need(in: 1) == .install)
        _ = standing.installed(in: 1, since: standing.mark)
        #expect(standing.need(in: 1) == .nothing)
        #expect(standing.need(in: 2) == .install)
        standing.heard()
        #expect(standing.need(in: 1) == .look)
        let mark = standing.mark
        standing.heard()
        _ = standing.installed(in: 1, since: mark)
        #expect(standing.need(in: 1) == .look, "what was heard while it ran may be newer than what it read")
        _ = standing.installed(in: 1, since: standing.mark)
        #expect(standing.need(in: 1) == .nothing)
    }

    @Test("a resync of everyday counts for no outage")
    func everyday() {
        var standing = Standing()
        _ = standing.installed(in: nil, since: standing.mark)
        #expect(standing.need(in: 1) == .install)
    }

    @Test("what was left is direct until an install that began later")
    func left() {
        var standing = Standing()
        let mark = standing.mark
        standing.left()
        #expect(standing.isDirect)
        #expect(standing.installed(in: nil, since: mark) == false)
        #expect(standing.isDirect, "it read Redis before the product was voided")
        #expect(standing.installed(in: nil, since: standing.mark) == true)
        #expect(!standing.isDirect)
        #expect(!standing.isVoided(in: 1))
        standing.voided(in: 1)
        #expect(standing.isVoided(in: 1) && !standing.isVoided(in: 2))
    }

    @Test("another ledger's data: sold directly, done for the recovery, and left by nothing; until a resync finds it gone")
    func foreign() {
        var standing = Standing()
        standing.foundForeign(in: 1, since: standing.mark)
        #expect(standing.isDirect && standing.isForeign && !standing.isLeft)
        #expect(standing.need(in: 1) == .nothing && standing.need(in: 2) == .install)
        standing.heard()
        #expect(standing.need(in: 1) == .look)
        #expect(standing.installed(in: nil, since: standing.mark) == true)
        #expect(!standing.isDirect && !standing.isForeign)
        // What was left or spoiled before is nothing but foreign now.
        _ = standing.spoiled(at: 1)
        standing.foundForeign(in: nil, since: standing.mark)
        #expect(standing.isForeign && !standing.isLeft && !standing.isSpoiled)
        // What was left since the resync began stays left, whatever that found.
        let mark = standing.mark
        standing.left()
        standing.foundForeign(in: nil, since: mark)
        #expect(standing.isForeign && standing.isLeft)
        #expect(standing.installed(in: nil, since: mark) == false)
        #expect(standing.isDirect && standing.isLeft && !standing.isForeign)
    }

    @Test("a spoiled product is mended after a pause, which doubles up to a bound while it is spoiled again and again")
    func spoiled() {
        var standing = Standing()
        var now: UInt64 = 1_000_000_000
        let early = standing.mark
        var pause = Standing.spoilPause.lowerBound
        for _ in 0..<20 {
            #expect(standing.spoiled(at: now) == now + pause)
            #expect(standing.isDirect && standing.isSpoiled)
            #expect(standing.isHeld(at: now + pause - 1) && !standing.isHeld(at: now + pause))
            #expect(standing.spoiled(at: now + 1) == nil, "that is arranged already")
            #expect(standing.installed(in: nil, since: early) == false)
            #expect(standing.isSpoiled)
            #expect(standing.installed(in: nil, since: standing.mark) == true)
            #expect(!standing.isDirect && !standing.isSpoiled)
            now += pause
            pause = min(pause * 2, Standing.spoilPause.upperBound)
        }
        #expect(pause == Standing.spoilPause.upperBound)
        now += Standing.spoilMemory
        #expect(standing.spoiled(at: now) == now + Standing.spoilPause.lowerBound, "the past is forgotten")
    }
}

@Suite("What is said of troubles")
struct EventWordsTests {
    @Test("the same words are said once, until they change or the trouble is over")
    func once() {
        var words = EventWords()
        #expect(words.say("a", of: .redis, at: 0) == 0)
        #expect(words.say("a", of: .redis, at: 5_000_000_000) == nil)
        #expect(words.say("a", of: .recovery, at: 5_000_000_000) == 0)
        #expect(words.say("b", of: .redis, at: 6_000_000_000) == 0)
        #expect(words.isOver(.redis) == true)
        #expect(words.isOver(.redis) == false)
        #expect(words.say("b", of: .redis, at: 7_000_000_000) == 0)
    }

    @Test("some are said in a second; the others are counted, and may be said later")
    func bounded() {
        var words = EventWords()
        for id in Int64(0)..<100 {
            #expect(words.say("a", of: .product(ProductID(id)), at: 1) == (id < Int64(EventWords.perSecond) ? 0 : nil))
        }
        #expect(words.say("a", of: .product(ProductID(99)), at: 1_000_000_000) == 100 - EventWords.perSecond)
        #expect(words.say("a", of: .product(ProductID(98)), at: 1_000_000_000) == 0)
    }

    @Test("what is news each time is admitted a few times in a second; the others are counted")
    func admitted() {
        var words = EventWords()
        for event in 0..<100 { #expect(words.admit(at: 1) == (event < EventWords.perSecond ? 0 : nil)) }
        #expect(words.admit(at: 1_000_000_000) == 100 - EventWords.perSecond)
        #expect(words.admit(at: 1_000_000_000) == 0)
    }

    @Test("so many subjects are remembered, and no more are said")
    func subjects() {
        var words = EventWords()
        var said = 0
        for id in 0..<EventWords.subjects + 50 {
            if words.say("a", of: .product(ProductID(Int64(id))), at: UInt64(id) * 1_000_000_000) != nil { said += 1 }
        }
        #expect(said == EventWords.subjects)
        #expect(words.say("b", of: .product(ProductID(1)), at: 1_000_000_000_000_000) == 50)
    }
}

@Suite("Whose failure it is")
struct FailureScopeTests {
    @Test(
        "errors of scripts that stumble over a product's keys are that product's",
        arguments: [
            ("WRONGTYPE Operation against a key holding the wrong kind of value script: 1f, on @user_script:30.", true),
            ("ERR user_script:46: attempt to compare nil with number script: 1f, on @user_script:46.", true),
            ("ERR value is not an integer or out of range script: 1f, on @user_script:30.", true),
            ("ERR Error running script (call to f_1f): @user_script:30: WRONGTYPE Operation against a key", true),
            ("ERR Unknown Redis command called from script script: 1f, on @user_script:30.", false),
            ("ERR unknown command 'EVALSHA'", false),
            ("ERR The user executing the script can't access at least one of the keys: No permissions, on @user_script:3.", false),
            ("ERR Error running script (call to f_1f): @user_script:30: -OOM command not allowed", false),
            ("NOPERM this user has no permissions to run the 'evalsha' command", false),
            ("OOM command not allowed when used memory > 'maxmemory'.", false), ("LOADING Redis is loading the dataset in memory", false),
            ("MISCONF Redis is configured to save RDB snapshots", false), ("BUSY Redis is busy running a script.", false),
        ]
    )
    func ofRedis(_ message: String, _ isOfProduct: Bool) {
        let failure = GateFailure(RedisError(.server(RedisServerError(message))))
        #expect(failure.isOfProduct == isOfProduct)
        #expect(failure.isTrouble == !isOfProduct)
        #expect(failure.words == "Redis: " + message)
        #expect(ResyncFailure(failure).scope == (isOfProduct ? .keys : .redis))
    }

    @Test("an error is told by its first line, without control characters, cut")
    func firstLine() {
        let failure = GateFailure(RedisError(.server(RedisServerError("ERR a\u{1B}[31mb\nsecond"))))
        #expect(failure.words == "Redis: ERR a[31mb")
        #expect(String(repeating: "x", count: 1000).firstLine.count == 200)
    }

    @Test(
        "an error of PostgreSQL is one row's only where it can be",
        arguments: [
            ("55P03", ResyncFailure.Scope.locked), ("57014", .locked), ("40P01", .locked), ("22003", .row), ("23514", .row),
            ("XX001", .row),
            ("25006", .ledger), ("53300", .ledger), ("57P01", .ledger), ("42883", .ledger), ("08006", .ledger),
        ]
    )
    func ofPostgres(_ state: String, _ scope: ResyncFailure.Scope) {
        let error = PostgresError(code: .server(sqlState: state), message: "words\nmore", sqlState: state)
        #expect(ResyncFailure(error, isAlone: true) == ResyncFailure(scope, "PostgreSQL: words"))
        #expect(ResyncFailure(error, isAlone: false).scope == .ledger)
        #expect(ResyncFailure.isOfMember(error) == (scope != .ledger))
    }

    @Test("what was not answered is PostgreSQL's, whatever it was for")
    func unanswered() {
        let error = PostgresError(code: .connectionLost(outcomeUnknown: true), message: "gone")
        #expect(ResyncFailure(error, isAlone: true).scope == .ledger)
        #expect(!ResyncFailure.isOfMember(error))
    }
}
