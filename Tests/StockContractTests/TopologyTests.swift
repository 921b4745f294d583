import MessageBroker
import StockContract
import Testing

@Suite struct TopologyTests {
    @Test func theSharedTopologyIsWhole() {
        for topology in [Topology.stock, .events] {
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
}
