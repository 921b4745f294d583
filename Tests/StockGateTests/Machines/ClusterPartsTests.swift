import RedisClient
import Synchronization
import Testing

@testable import StockGate

@Suite("What the engine makes of a cluster")
struct ClusterPartsTests {
    @Test("a redirection is no trouble of Redis, has run nothing, and says that the slot is not the node's")
    func redirections() {
        for words in [
            "MOVED 3999 127.0.0.1:6381", "ASK 3999 127.0.0.1:6381", "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN Hash slot not served",
        ] {
            let failure = GateFailure(RedisError(.server(RedisServerError(words))))
            #expect(failure.isOfSlot && !failure.isTrouble && !failure.isOfProduct && !failure.sent, "\(words)")
            #expect(failure.saysOfSlots?.message == words)
            #expect(ResyncFailure(failure).scope == .slot)
        }
        let down = GateFailure(RedisError(.server(RedisServerError("CLUSTERDOWN The cluster is down"))))
        #expect(down.isTrouble && !down.isOfSlot && down.saysOfSlots != nil && ResyncFailure(down).scope == .redis)
        let demoted = GateFailure(RedisError(.server(RedisServerError("READONLY You can't write against a read only replica."))))
        #expect(demoted.isTrouble && !demoted.isOfSlot && demoted.saysOfSlots == nil)
    }

    @Test("what was done for a product at another master counts for nothing, and neither does what comes of it later")
    func moves() {
        var standing = Standing()
        _ = standing.installed(in: 1, since: standing.mark)
        standing.voided(in: 1)
        let mark = standing.mark
        #expect(standing.need(in: 1) == .nothing && !standing.isDirect)
        standing.changedMaster()
        #expect(standing.isDirect && standing.need(in: 1) == .install && !standing.isVoided(in: 1))
        _ = standing.installed(in: nil, since: mark)
        #expect(standing.isDirect, "that resync began before the move")
        _ = standing.installed(in: nil, since: standing.mark)
        #expect(!standing.isDirect)
        // A mending that is planned for the old place does not hold up the new one.
        let until = standing.spoiled(at: 1_000_000_000)
        #expect(until != nil && standing.isHeld(at: 1_000_000_000))
        standing.changedMaster()
        #expect(!standing.isHeld(at: 1_000_000_000) && !standing.isSpoiled && standing.isLeft)
    }

    @Test("a product that changes its master before it was installed from a ledger that went back still owes the leap there")
    func movesTwice() {
        var standing = Standing()
        _ = standing.installed(in: 1, since: standing.mark)
        standing.moved()
        let mark = standing.mark
        standing.changedMaster()
        #expect(standing.isMoved && standing.isDirect)
        _ = standing.installed(in: 1, since: mark)
        #expect(standing.isMoved && standing.isDirect, "that install was at the master before")
        _ = standing.installed(in: 1, since: standing.mark)
        #expect(!standing.isMoved && !standing.isDirect)
        // The other way round.
        standing.changedMaster()
        let between = standing.mark
        standing.moved()
        _ = standing.installed(in: 2, since: between)
        #expect(standing.isMoved && standing.isDirect && standing.need(in: 2) == .look, "that install knows nothing of the ledger's move")
    }

    @Test("a resync that pauses after failures begins at once when the product has moved; one that runs is followed by another")
    func schedule() {
        var schedule = ResyncSchedule(interval: 10)
        #expect(schedule.asked(forced: true, at: 0) == .run(forced: true))
        guard case .wait(let until) = schedule.ended(succeeded: false, at: 1) else {
            Issue.record("it does not pause")
            return
        }
        #expect(until > 2)
        #expect(schedule.hurried(at: 2) == .run(forced: true))
        #expect(schedule.hurried(at: 3) == .none, "it runs")
        #expect(schedule.asked(forced: true, at: 3) == .none)
        #expect(schedule.timerFired(at: until) == .none, "the timer of the pause finds it running")
        #expect(schedule.ended(succeeded: true, at: 12) == .run(forced: true))
        #expect(schedule.ended(succeeded: true, at: 30) == .none && schedule.isIdle)
        #expect(schedule.hurried(at: 31) == .none && schedule.isIdle)
    }

    @Test("the keys with which a node is tried out are of a slot that it serves, and of no product")
    func tags() throws {
        let slots = [HashSlot(key: "0"), HashSlot(key: "-17"), try #require(HashSlot(rawValue: 16_383))]
        for slot in slots {
            let tag = try #require(GateKeys.tagOfNoProduct { $0 == slot })
            #expect(HashSlot(key: "sg:{\(tag)}:memory") == slot)
            #expect(GateKeys.product(ofMarks: "sg:{\(tag)}:marks") == nil)
        }
        #expect(GateKeys.tagOfNoProduct { _ in true } == "0", "a Redis that is no cluster has the keys that it always had")
        #expect(GateKeys.tagOfNoProduct { _ in false } == nil)
        #expect(GateKeys.slot(of: ProductID(42)) == HashSlot(key: GateKeys(ProductID(42)).stock))
        guard case .string(let key)? = GateRefusal.keys("0").first else { return }
        #expect(key == "sg:{0}:check:string")
    }

    @Test("the troubles of two masters are told apart; a product's trouble is told once, wherever it was met")
    func events() {
        let told = Mutex<[String]>([])
        let log = EventLog { event in told.withLock { $0.append("\(event)") } }
        let (one, two) = (log.of(master: "a:1"), log.of(master: "b:2"))
        let failure = GateFailure(sent: true, label: "timeout", isTrouble: true)
        for log in [one, two, one, two] { log.redisFailed(failure) }
        #expect(told.withLock { $0.count } == 2 && told.withLock { $0[0].contains("a:1") && $0[1].contains("b:2") })
        #expect(one.isOver(.redis) && !one.isOver(.redis) && two.isOver(.redis))
        one.say("x", of: .product(ProductID(7)), .leftDirect(ProductID(7), why: "x"))
        #expect(two.isOver(.product(ProductID(7))), "it is over at its new master")
    }

    @Test("a queue that is closed gives back what waits and takes nothing")
    func queue() {
        let queue = ResyncQueue()
        let product = GatedProduct(ProductID(1), shard: nil, resyncInterval: 0)
        let waiting = ResyncQueue.Waiting(product: product, isForced: true) { _ in }
        #expect(queue.append(waiting, isPatient: false) && queue.append(waiting, isPatient: true))
        #expect(queue.close().count == 2)
        #expect(!queue.append(waiting, isPatient: false))
        #expect(queue.next(10).isEmpty && queue.close().isEmpty)
    }
}
