import Testing

extension Faults.OneInstance {
    /// Leaves PENDING orders, some with their stock taken; the server that starts next settles each.
    @Test func orderServerKilled() async throws {
        try await RunningSale.hold("order server killed -9, one instance") { sale in
            var left = 0
            var kills = 0
            repeat {
                kills += 1
                try await sale.stack("kill order")
                try await sale.noSession(ofProducts: false)
                let pending = try await sale.pendingOrders()
                left += pending
                try await sale.stack("start order")
                let back = try await sale.sells(200, "after the order server came back")
                let settled = try await sale.settlesOrders()
                await sale.note(
                    "kill \(kills): \(pending) orders left PENDING, sells again after \(back.text), all settled \(settled.text) later"
                )
            } while (left == 0 || kills < 3) && kills < 8
            #expect(left > 0, "killed with orders under way")
        }
    }

    @Test func orderServerStopped() async throws {
        try await RunningSale.hold("order server stopped by SIGTERM, one instance") { sale in
            let began = ContinuousClock.now
            let said = try await sale.stack("stop order")
            let stopped = ContinuousClock.now - began
            #expect(!said.contains("killing"), "it ends by itself: \(said)")
            try await sale.noSession(ofProducts: false)
            let pending = try await sale.pendingOrders()
            try await sale.stack("start order")
            let back = try await sale.sells(200, "after the order server came back")
            await sale.note("ended in \(stopped.text) with \(pending) orders left PENDING, sells again after \(back.text)")
        }
    }
}

extension Faults.TwoInstances {
    /// The other instance settles what it left, before it is started again.
    @Test func orderServerKilled() async throws {
        try await RunningSale.hold("order server killed -9, the other settles") { sale in
            try await sale.stack("kill order-2")
            let settling = try await sale.settlesOrders()
            let without = try await sale.sells(200, "while order-2 is dead")
            await sale.note("the other settled all earlier orders in \(settling.text), then sells after \(without.text)")
            try await sale.stack("start order-2")
        }
    }

    @Test func orderServersRestartedInTurn() async throws {
        try await RunningSale.hold("order servers restarted in turn by SIGTERM") { sale in
            for instance in [1, 2] {
                let began = ContinuousClock.now
                let said = try await sale.stack("restart order-\(instance)")
                #expect(!said.contains("killing"), "it ends by itself: \(said)")
                await sale.note("order-\(instance) restarted in \((ContinuousClock.now - began).text)")
                try await sale.sells(200, "after order-\(instance) was restarted")
            }
        }
    }
}
