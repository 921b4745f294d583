import StockContract

/// Which queue the commands of a product go to.
struct CommandRoutes: Sendable {
    /// The names of the cells; nil for one that has all products.
    let cells: [String?]
    let map: CellMap?

    init(_ cells: [CellSetting], _ map: CellMap?) {
        self.cells = cells.map { $0.ids?.name }
        self.map = map
    }

    /// The routing key of a command. A product that no cell has any more gets one of no queue: the message is tried again, then given up, and recovery has its
    /// orders.
    func routingKey(product: Int64?) -> String {
        guard let map, let product else { return StockGateTopology.decreaseRoutingKey }
        return map.cell(of: product).map { StockGateTopology.decreaseQueue(ofCell: cells[$0]) } ?? StockGateTopology.noCellRoutingKey
    }
}
