import MessageBroker
import StockContract
import Testing

@Suite struct TopologyTests {
    @Test func theSharedTopologyIsWhole() {
        for topology in [Topology.stock, .productServer, .stock(cells: ["1-9", "10-"]), .productServer(ofCell: "10-"), .events] {
            let exchanges = Set(topology.exchanges.map(\.name))
            let queues = Set(topology.queues.map(\.name))
            for binding in topology.bindings {
                #expect(exchanges.contains(binding.exchange))
                #expect(queues.contains(binding.queue))
            }
            for queue in topology.queues {
                #expect(topology.bindings.contains { $0.queue == queue.name }, "\(queue.name) is bound to nothing")
                if let dead = queue.arguments["x-dead-letter-exchange"]?.string { #expect(exchanges.contains(dead)) }
            }
        }
        // A stream that cannot be declared must hold up no sale.
        #expect(Topology.stock.queues.allSatisfy { $0.kind == .quorum })
        #expect(Topology.events.queues.map(\.name) == [StockGateTopology.orderEventsStream])
    }

    @Test("one cell without a name has the names of before, and cells share the results and the dead letters alone")
    func cells() {
        #expect(Topology.stock(cells: [nil]) == .stock && Topology.productServer(ofCell: nil) == .productServer)
        #expect(StockGateTopology.decreaseQueue(ofCell: nil) == StockGateTopology.decreaseQueue)
        let (first, second) = (Topology.productServer(ofCell: "1-9"), Topology.productServer(ofCell: "10-"))
        let shared = Set(first.queues.map(\.name)).intersection(second.queues.map(\.name))
        #expect(shared == [StockGateTopology.resultsQueue, StockGateTopology.deadQueue])
        // What a cell sets aside comes back to the same cell.
        let aside = second.queues.first { $0.name == "stock.decrease.aside@10-" }
        #expect(aside?.arguments["x-dead-letter-routing-key"]?.string == "stock.decrease@10-")
        let order = Topology.stock(cells: ["1-9", "10-"])
        for topology in [first, second] {
            for queue in topology.queues where !queue.name.hasPrefix("stock.decrease.aside") { #expect(order.queues.contains(queue)) }
        }
        #expect(!order.bindings.contains { $0.routingKey == StockGateTopology.noCellRoutingKey })
    }
}
