import Logging

/// The operations on orders, each in a type of its own.
struct OrderFlows: Sendable {
    let placing: OrderPlacing
    /// Nil without a broker.
    let accepting: OrderAccepting?
    let cancellation: OrderCancellation
    let conclusion: OrderConclusion
    let rerun: OrderRerun
    let earlier: EarlierOrders

    /// The parts that the flows use.
    struct Foundation: Sendable {
        var store: OrderStore
        var groups: OrderGroups
        var waiting: WaitingBuyers
        var changes: OrderWatch
        var predecessors: Predecessors
        var cells: ProductCells
        /// Nil without a broker.
        var backlog: OutboxBacklog?
        /// The steps of each order's saga, in their order. To add a step, add a value here.
        var steps: [SagaStep]
        var metrics: OrderMetrics
        var logger: Logger
    }

    init(_ settings: OrderServerConfiguration, on foundation: Foundation) {
        let trouble = StoreTrouble(foundation.logger)
        let deadlines = BuyerDeadlines(foundation.waiting, time: settings.deadlines.buyer)
        let conclusion = OrderConclusion(
            deadlines: settings.deadlines,
            store: foundation.store,
            completion: foundation.groups.completion,
            orchestrator: SagaOrchestrator(steps: foundation.steps, policy: settings.retry),
            trouble: trouble,
            metrics: foundation.metrics,
            logger: foundation.logger
        )
        self.conclusion = conclusion
        self.earlier = EarlierOrders(
            keys: foundation.groups.keys,
            conclusion: conclusion,
            trouble: trouble,
            predecessors: foundation.predecessors
        )
        let turnaway = OrderTurnaway(
            persistsRejected: settings.persistsRejected,
            insertion: foundation.groups.insertion,
            earlier: self.earlier,
            trouble: trouble,
            metrics: foundation.metrics
        )
        placing = OrderPlacing(
            cells: foundation.cells,
            insertion: foundation.groups.insertion,
            deadlines: deadlines,
            turnaway: turnaway,
            conclusion: conclusion
        )
        accepting = foundation.backlog.map { backlog in
            OrderAccepting(
                cells: foundation.cells,
                backlog: backlog,
                insertion: foundation.groups.insertion,
                deadlines: deadlines,
                turnaway: turnaway,
                metrics: foundation.metrics
            )
        }
        cancellation = OrderCancellation(conclusion: conclusion, deadlines: deadlines)
        rerun = OrderRerun(conclusion: conclusion, deadlines: deadlines, changes: foundation.changes)
    }
}
