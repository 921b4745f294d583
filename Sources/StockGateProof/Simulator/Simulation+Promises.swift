import StockGate

// The promises that a run must keep, and the ownership of the ledger's rows.

extension Simulation {
    func check(thoroughly: Bool) {
        if ledger.products.contains(where: { $0.stock < 0 }) || thoroughly, let violation = ledger.violation() { broken = violation }
    }

    func finalViolation() -> String? {
        if let violation = ledger.violation() { return violation }
        for index in products {
            guard let row = ledger.product(Self.id(index)) else { return "product \(index + 1) is gone" }
            let gate = gates[index]
            let name = "product \(index + 1)"
            // Without an audit the fences may stay different. But what is served under an equal fence must be exact.
            if plan.isAuditless, !gate.isLoaded(dataset: dataset(index), fault: plan.fault) || gate.fence != row.fence { continue }
            if !gate.isLoaded(dataset: dataset(index), fault: plan.fault) { return "\(name) is not loaded" }
            if gate.fence != row.fence { return "\(name): fences differ: Redis \(gate.fence), PostgreSQL \(row.fence)" }
            if !gate.pending.isEmpty { return "\(name): a reservation is stranded: \(gate.pending.map(\.key))" }
            let expected = row.isOnSale ? row.stock : nil
            if gate.counter != expected {
                return
                    "\(name): Redis holds \(gate.counter.map(String.init) ?? "nothing"), PostgreSQL \(row.stock)\(row.isOnSale ? "" : ", discontinued")"
            }
        }
        for server in servers { if let open = server.process?.openWork { return "server \(server.number) did not drain: \(open)" } }
        for client in clients { if let violation = client.violation() { return violation } }
        var sold: Set<String> = []
        for key in clients.flatMap(\.soldKeys) where !lost.contains(key) && !sold.insert(key).inserted {
            return "two orders are sold by one decrease: \(key)"
        }
        for stranger in strangers { if let violation = stranger.violation() { return "a stranger: " + violation } }
        return nil
    }

    // MARK: Whose a row is

    /// The time that an order names which was made at this moment. All clocks of a run are the same, so there is no tolerance.
    func since(_ madeAt: Int) -> Int64? {
        plan.restoresOrders && plan.comparesTimes ? Int64(madeAt) + DecreaseRequest.clockTolerance.components.seconds * 1_000_000 : nil
    }

    /// Records that a statement may have written these rows.
    func wrote(_ keys: [String]) {
        guard plan.restoresOrders else { return }
        for key in keys where writtenAt[key] == nil && ledger.row(key) != nil { writtenAt[key] = now }
    }

    /// Compares the row's time with the order's before answering, as the product server does.
    func compared(_ answer: DecreaseAnswer, _ request: DecreaseRequest) -> DecreaseAnswer {
        switch answer {
        case .sold, .keyClosed:
            guard plan.fault != .sinceIgnored, let time = writtenAt[request.key], request.isOlder(rowMadeAt: Int64(time)) else {
                return answer
            }
            return .keyReused
        case .insufficient, .keyReused, .notOnSale, .productMissing, .unavailable: return answer
        }
    }
}
