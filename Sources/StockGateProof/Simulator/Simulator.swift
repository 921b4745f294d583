/// Runs seeded simulations, and finds the shortest history of a run that breaks a promise.
public enum Simulator {
    /// The result of one run, or of many.
    public struct Report: Sendable {
        /// The seed of the run, or of the one that broke a promise.
        public var seed: UInt64
        /// The broken promise; nil: every promise holds.
        public var violation: String?
        /// For a failing run: the shrunken plan and its events. Otherwise empty.
        public var history: [String] = []
        /// The number of runs.
        public var runs = 1
        /// Virtual time, microseconds.
        public var time: Int
        /// Requests of clients, commands to Redis and statements to PostgreSQL.
        public var operations: Int
        /// Events in the queue.
        public var events: Int
    }

    /// Runs one plan.
    public static func run(_ plan: SimulationPlan, tracing: Bool = false) -> Report {
        let simulation = Simulation(plan, tracing: tracing)
        simulation.run()
        return Report(
            seed: plan.seed,
            violation: simulation.broken,
            history: tracing ? plan.lines + simulation.history : [],
            time: simulation.now,
            operations: simulation.operations,
            events: simulation.events
        )
    }

    /// Runs seeds one after the other until one breaks a promise or `isOver` says to stop. Shrinks the plan of a seed that breaks one.
    public static func run(
        seeds: some Sequence<UInt64>,
        fault: Fault? = nil,
        shrinking: Bool = true,
        until isOver: () -> Bool = { false }
    ) -> Report {
        var total = Report(seed: 0, violation: nil, runs: 0, time: 0, operations: 0, events: 0)
        for seed in seeds {
            let plan = SimulationPlan(seed: seed, fault: fault)
            let report = run(plan)
            total.seed = seed
            total.runs += 1
            total.time += report.time
            total.operations += report.operations
            total.events += report.events
            if let violation = report.violation {
                total.violation = violation
                if shrinking { total.history = shrink(plan) }
                return total
            }
            if isOver() { break }
        }
        return total
    }

    /// Removes disasters, work by hand, strangers, orders and clients, as long as a promise is still broken. Returns the history of what is left.
    static func shrink(_ plan: SimulationPlan, atMost limit: Int = 400) -> [String] {
        var best = plan
        var runs = 0
        func fails(_ plan: SimulationPlan) -> Bool {
            runs += 1
            return runs <= limit && run(plan).violation != nil
        }
        var isShrinking = true
        while isShrinking {
            isShrinking = false
            var candidates: [SimulationPlan] = []
            for index in best.strikes.indices { candidates.append(best.changed { $0.strikes.remove(at: index) }) }
            for index in best.hands.indices { candidates.append(best.changed { $0.hands.remove(at: index) }) }
            for index in best.strangers.indices { candidates.append(best.changed { $0.strangers.remove(at: index) }) }
            for index in best.clients.indices { candidates.append(best.changed { $0.clients.remove(at: index) }) }
            for index in best.clients.indices where best.clients[index].count > 1 {
                for order in best.clients[index].indices { candidates.append(best.changed { $0.clients[index].remove(at: order) }) }
            }
            if let smaller = candidates.first(where: fails) {
                best = smaller
                isShrinking = true
            }
        }
        return run(best, tracing: true).history
    }
}

extension SimulationPlan {
    fileprivate func changed(_ change: (inout SimulationPlan) -> Void) -> SimulationPlan {
        var plan = self
        change(&plan)
        return plan
    }
}
