import BlockingThreads
import Eventually
import PrivateServers
import Synchronization
import Testing

@testable import PostgresClient

@Suite struct PoolTests {
    @Test func machineNeverLendsMoreThanItsBound() {
        var machine = PoolStateMachine<Int>(limit: 2, waitingLimit: 1)
        guard case .open = machine.acquire(1), case .open = machine.acquire(2), case .wait = machine.acquire(3),
            case .rejectFull = machine.acquire(4)
        else { return #expect(Bool(false), "bounds") }
        #expect(machine.rejected == 1)
        guard case .handOver(10, to: 3) = machine.giveBack(10) else { return #expect(Bool(false), "hand over") }
        let isStillWaiting = machine.leave(3, expired: true)
        #expect(!isStillWaiting)
        guard case .kept = machine.giveBack(10), case .use(10) = machine.acquire(5) else { return #expect(Bool(false), "reuse") }
        guard case .wait = machine.acquire(6) else { return #expect(Bool(false), "wait") }
        let hasLeft = machine.leave(6, expired: true)
        #expect(hasLeft)
        #expect(machine.expired == 1)
        _ = machine.shutdown()
        guard case .close(10) = machine.giveBack(10), case .rejectShutDown = machine.acquire(7) else { return #expect(Bool(false), "shut") }
        #expect(machine.busy == 1)
    }

    @Test func poolBoundsConnectionsWaitersAndWaits() async throws {
        let pool = PostgresPool(
            configuration: try SharedServer.configuration(),
            maximumConnections: 1,
            maximumWaiting: 1,
            acquireTimeout: .seconds(60)
        )
        try await pool.withConnection { _ async throws in
            let waiting = Task { try await pool.query("SELECT 1") }
            #expect(try await eventually { pool.snapshot().waiting == 1 })
            let full = await #expect(throws: PostgresError.self) { try await pool.query("SELECT 1") }
            #expect(full?.code == .poolExhausted)
            waiting.cancel()
            _ = await waiting.result
        }
        #expect(pool.snapshot() == .init(open: 1, busy: 0, waiting: 0, rejected: 1, expired: 0))
        await pool.shutdown()
        let short = PostgresPool(
            configuration: try SharedServer.configuration(),
            maximumConnections: 1,
            maximumWaiting: 1,
            acquireTimeout: .milliseconds(100)
        )
        try await short.withConnection { _ in
            let late = await #expect(throws: PostgresError.self) { try await short.query("SELECT 1") }
            #expect(late?.code == .poolExhausted)
        }
        #expect(short.snapshot() == .init(open: 1, busy: 0, waiting: 0, rejected: 0, expired: 1))
        await short.shutdown()
    }

    @Test func waitingCallersAreServedCancelledAndShutDown() async throws {
        let pool = PostgresPool(configuration: try SharedServer.configuration(), maximumConnections: 2, acquireTimeout: .seconds(60))
        let sum = try await withThrowingTaskGroup(of: Int64.self) { group in
            for number in 0..<100 {
                group.addTask { try await pool.query("SELECT $1", [.int(Int64(number))]).one().decode(0, as: Int64.self) }
            }
            return try await group.reduce(0, +)
        }
        #expect(sum == 4950)
        #expect(pool.snapshot().open <= 2)

        try await pool.withConnection { _ in
            try await pool.withConnection { _ async throws in
                let cancelled = Task { try await pool.query("SELECT 1") }
                #expect(try await eventually { pool.snapshot().waiting == 1 })
                cancelled.cancel()
                let error = await #expect(throws: PostgresError.self) { try await cancelled.value }
                #expect(error?.code == .cancelled)
                let refused = Task { try await pool.query("SELECT 1") }
                #expect(try await eventually { pool.snapshot().waiting == 1 })
                await pool.shutdown()
                let shut = await #expect(throws: PostgresError.self) { try await refused.value }
                #expect(shut?.code == .shutDown)
            }
        }
        #expect(pool.snapshot().open == 0)
    }

    @Test func aWorkerDoesWhatAJobPostponedBeforeTheNextJob() async throws {
        let worker = try PostgresWorker(configuration: try SharedServer.configuration())
        let notes = Mutex<[String]>([])
        try worker.submit { session in
            session.postpone { notes.withLock { $0.append("postponed") } }
            notes.withLock { $0.append("job") }
        }
        try await worker.perform { _ in notes.withLock { $0.append("next") } }
        #expect(notes.withLock { $0 } == ["job", "postponed", "next"])
        await worker.shutdown()
    }

    @Test func workerRunsJobsInOrderRefusesAtItsBoundAndShutsDown() async throws {
        let worker = try PostgresWorker(configuration: try SharedServer.configuration(), maximumQueued: 2)
        let one = try await worker.perform { try $0.query("SELECT 1").one().decode(0, as: Int64.self) }
        #expect(one == 1)
        let gate = WakeSignal()
        let began = WakeSignal()
        let ran = Mutex([Int]())
        try worker.submit { _ in
            began.signal()
            gate.wait()
        }
        #expect(began.wait(for: .seconds(60)))
        for number in 0..<2 { try worker.submit { _ in ran.withLock { $0.append(number) } } }
        let full = #expect(throws: PostgresError.self) { try worker.submit { _ in } }
        #expect(full?.code == .poolExhausted)
        gate.signal()
        await worker.shutdown()
        #expect(ran.withLock { $0 } == [0, 1])
        let shut = #expect(throws: PostgresError.self) { try worker.submit { _ in } }
        #expect(shut?.code == .shutDown)
    }
}
