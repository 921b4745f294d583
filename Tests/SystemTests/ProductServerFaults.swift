import Eventually
import Foundation
import NIOHTTP1
import Testing

extension Faults {
    /// The only product server. A reserve has half a second: a breaker that opens is opened by the fault, not by a busy machine.
    @Suite("Faults of one instance", .serialized, .stack(instances: 1, ["GATE_TIMEOUT": "500ms"]), .timeLimit(.minutes(20)))
    struct OneInstance {}
}

extension Faults {
    /// The only product server, whose groups wait in PostgreSQL for a held row until long after it is killed; by default they wait for 50 ms.
    @Suite(
        "Faults of one instance with patient groups",
        .serialized,
        .stack(instances: 1, ["LEDGER_ROW_WAIT": "2s"]),
        .timeLimit(.minutes(20))
    )
    struct OnePatientInstance {}
}

extension Faults.OnePatientInstance {
    /// Dies between reserve and commit, and between commit and settle, until both were met.
    ///
    /// The first kill comes at any moment. Then the product's row is held while the server is killed: what waits in the process dies with it, and
    /// what PostgreSQL has already got is committed after its sender's death, when the row is let go.
    @Test func productServerKilled() async throws {
        try await RunningSale.hold("product server killed -9, one instance") { sale in
            var uncommitted = 0
            var unsettled = 0
            var kills = 0
            repeat {
                kills += 1
                if kills == 1 {
                    try await sale.stack("kill product")
                } else {
                    try await sale.holdingTheRow {
                        try await until("a commit waits for the row, and reservations for a commit") {
                            let waiting = try await sale.commitsWaiting()
                            return try await sale.reservations().count >= 10 && waiting > 0
                        }
                        // At once, and not by the script: until that runs on a busy machine, those that wait have been refused.
                        kill(try sale.stack.pid(of: "product-1"), SIGKILL)
                    }
                }
                try await sale.noSession(ofProducts: true)
                let reservations = try await sale.reservations()
                let committed = try await sale.committed(reservations)
                uncommitted += reservations.count - committed
                unsettled += committed
                try await sale.stack("start product")
                let back = try await sale.sells(200, "after the product server came back")
                await sale.note(
                    "kill \(kills): \(reservations.count) reservations left, \(committed) of them committed, sells again after \(back.text)"
                )
            } while (uncommitted == 0 || unsettled == 0 || kills < 3) && kills < 8
            #expect(uncommitted > 0, "died between reserve and commit")
            #expect(unsettled > 0, "died between commit and settle")
        }
    }
}

extension Faults.OneInstance {
    @Test func productServerPaused() async throws {
        try await RunningSale.hold("product server paused, one instance") { sale in
            try await sale.stack("pause product")
            try await sale.isFelt()
            try await sale.stack("resume product")
            let back = try await sale.sells(300, "after the product server was resumed")
            await sale.note("sells again after \(back.text)")
        }
    }
}

extension Faults.TwoInstances {
    @Test func productServerKilled() async throws {
        try await RunningSale.hold("product server killed -9, two instances") { sale in
            for instance in [1, 2, 1] {
                try await sale.stack("kill product-\(instance)")
                let without = try await sale.sells(200, "while product-\(instance) is dead")
                try await sale.stack("start product-\(instance)")
                let back = try await sale.sells(200, "after product-\(instance) came back")
                await sale.note("product-\(instance) killed: the other sells after \(without.text), both after \(back.text)")
            }
        }
    }

    @Test func productServersRestartedInTurn() async throws {
        try await RunningSale.hold("product servers restarted in turn by SIGTERM") { sale in
            for instance in [1, 2] {
                let began = ContinuousClock.now
                let said = try await sale.stack("restart product-\(instance)")
                #expect(!said.contains("killing"), "it ends by itself: \(said)")
                await sale.note("product-\(instance) restarted in \((ContinuousClock.now - began).text)")
                try await sale.sells(200, "after product-\(instance) was restarted")
            }
        }
    }

    /// It holds reservations while it hangs: the other instance sweeps them, and what it commits when it wakes up is counted all the same.
    @Test func productServerPausedBeyondTheSweep() async throws {
        try await RunningSale.hold("product server paused beyond the sweep, two instances") { sale in
            let first = try await Client(try sale.stack.address("PRODUCT", 1, "ADMIN_PORT"))
            let other = try await Client(try sale.stack.address("PRODUCT", 2, "ADMIN_PORT"))
            let process = try sale.stack.pid(of: "product-1")
            var pauses = 0
            var swept = false
            repeat {
                pauses += 1
                let before = try await other.metric("stockgate_swept_total")
                // How many wait at a time depends on the machine: a buyer whose reservation has waited for LEDGER_ROW_WAIT is refused and comes back later.
                let isPaused = try await sale.holdingTheRow {
                    do {
                        try await until("a reservation of product-1 waits for its commit", within: .seconds(5)) {
                            try await first.metric("stockgate_locked_waiting") > 0
                        }
                    } catch is NotInTime {
                        // Those that waited had been refused before this test looked, and since then nobody reserves what is locked. The next hold begins anew.
                        return false
                    }
                    // At once, and not by the script: until that runs on a busy machine, those that wait have been refused.
                    kill(process, SIGSTOP)
                    return true
                }
                guard isPaused else {
                    try await sale.sells(200, "after the row was free again")
                    continue
                }
                do {
                    // The bound of a reservation and two rounds of the sweep; more than that on a busy machine.
                    try await until("product-2 sweeps", within: .seconds(10)) { try await other.metric("stockgate_swept_total") > before }
                    swept = true
                } catch is NotInTime {
                    // It held no reservation by chance, or a resync by the other has dropped them already.
                }
                kill(process, SIGCONT)
                try await sale.sells(200, "after product-1 was resumed")
            } while !swept && pauses < 10
            first.close()
            other.close()
            await sale.note("swept in pause \(pauses)")
            #expect(swept)
        }
    }

    /// One server goes past Redis while the other reserves in it.
    @Test func productServersDisagreeAboutRedis() async throws {
        try await RunningSale.hold("one of two product servers goes past Redis") { sale in
            let admin = try await Client(try sale.stack.address("PRODUCT", 1, "ADMIN_PORT"))
            for round in 1...3 {
                let open = try await admin.call(.POST, "/admin/circuitbreakers/redisStock", json: "{\"updateState\":\"FORCE_OPEN\"}")
                #expect(open.status == 200)
                try await sale.sells(200, "while product-1 goes past Redis, round \(round)")
                let close = try await admin.call(.POST, "/admin/circuitbreakers/redisStock", json: "{\"updateState\":\"CLOSE\"}")
                #expect(close.status == 200)
                try await sale.breaker(of: 1, is: ["CLOSED"])
                try await sale.sells(200, "after product-1 came back to Redis, round \(round)")
            }
            admin.close()
        }
    }
}
