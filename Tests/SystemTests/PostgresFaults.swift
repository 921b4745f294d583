import Testing

extension Faults.OneInstance {
    /// Both databases at once: the ledger's and the orders'. Commits are cut off with their outcome unknown.
    @Test func postgresKilled() async throws {
        try await RunningSale.hold("PostgreSQL killed -9") { sale in
            for _ in 1...2 {
                try await sale.stack("kill postgres")
                try await sale.isFelt()
                let began = ContinuousClock.now
                try await sale.stack("start postgres")
                let started = ContinuousClock.now - began
                let back = try await sale.sells(200, "after PostgreSQL came back")
                await sale.note("PostgreSQL recovered in \(started.text), sells again \(back.text) later")
            }
        }
    }

    /// Connections stay open and nothing answers: statements run into their time limits.
    @Test func postgresPaused() async throws {
        try await RunningSale.hold("PostgreSQL paused") { sale in
            try await sale.stack("pause postgres")
            try await sale.isFelt()
            try await sale.stack("resume postgres")
            let back = try await sale.sells(200, "after PostgreSQL was resumed")
            await sale.note("sells again after \(back.text)")
        }
    }

    /// The machine loses its power: every process dies within a moment. What was answered is on the disk.
    @Test func everythingKilled() async throws {
        try await RunningSale.hold("everything killed -9 at once") { sale in
            try await sale.stack("kill")
            let began = ContinuousClock.now
            try await sale.stack("start redis postgres gateway product order")
            let started = ContinuousClock.now - began
            let back = try await sale.sells(200, "after everything came back")
            let settled = try await sale.settlesOrders()
            await sale.note("started in \(started.text), sells again \(back.text) later, all settled \(settled.text) later")
        }
    }
}
