public import StockGate

// The promises about the ledger's rows, and about what callers were told of them.

extension LedgerModel {
    /// The promise that this state breaks, if any: stock below zero, units lost or made, a compensated key with a net effect.
    public func violation() -> String? {
        for product in products where product.stock < 0 { return "stock of product \(product.id) is \(product.stock)" }
        for product in products {
            var expected = product.initial
            for row in rows where row.product == product.id {
                switch row.direction {
                case .out: expected -= row.quantity.rawValue
                case .in: expected += row.quantity.rawValue
                case .closed: break
                }
            }
            if expected != product.stock {
                return "product \(product.id): units lost or made: stock \(product.stock), ledger says \(expected)"
            }
        }
        for row in rows where row.key.hasPrefix("INC-") {
            let decrease = self.row("DEC-" + row.key.dropFirst(4))
            if let decrease,
                (row.product, row.orderID, row.quantity) != (decrease.product, decrease.orderID, decrease.quantity)
            {
                return "\(row.key) is of another product, order or quantity than \(decrease.key)"
            }
            switch (row.direction, decrease?.direction) {
            case (.in, .out): break
            case (.in, _): return "\(row.key) gave back what was never taken"
            case (_, .out): return "decremented after its compensation: \(row.key)"
            case (_, .closed): break
            default: return "\(row.key): the decrease's key is not closed"
            }
        }
        return nil
    }

    /// The untrue statement in an answer to an increase, judged by the present rows; nil if there is none, or if nothing was decided.
    ///
    /// Rows never change, so this may be asked at any time after the answer.
    public func violation(of answer: IncreaseAnswer, to request: IncreaseRequest) -> String? {
        let direction: LedgerEntry.Direction
        switch answer {
        case .added: direction = .in
        case .nothingToReturn: direction = .closed
        case .keyReused:
            guard let known = row(request.decreaseKey) ?? row(request.key) else { return "\(request.key) told reused, and nothing uses it" }
            guard (known.product, known.orderID, known.quantity) == (request.product, request.orderID, request.quantity) else { return nil }
            return "\(request.key) told reused, though it names what its decrease names"
        case .productMissing, .unavailable: return nil
        }
        guard let own = row(request.key) else { return "\(request.key) answered, and not in the ledger" }
        guard own.direction == direction else { return "\(request.key) told \(answer), the ledger says \(own.direction.rawValue)" }
        guard (own.product, own.orderID, own.quantity) == (request.product, request.orderID, request.quantity) else {
            return "\(request.key) told \(answer) for another product, order or quantity"
        }
        return nil
    }
}
