extension SaleReport {
    /// The longest time in which no order was confirmed (accepted, where orders are decided later), of those times that began during the fault; as exact as the intervals are
    /// short. Nil where none was ever confirmed after one: whether that is the fault's doing or the end of the stock these figures do not tell.
    func longestSilence(during fault: FaultSpan) -> Double? {
        var longest = 0.0
        var began: Double?
        for point in result.points {
            let start = point.at - point.seconds
            if point.outcomes[OrderOutcome.confirmed.rawValue] > 0 {
                if let began { longest = max(longest, start - began) }
                began = nil
            } else if began == nil, point.at > fault.from, start <= fault.to ?? .infinity {
                began = max(start, fault.from)
            }
        }
        return began == nil ? longest : nil
    }

    /// A line for each fault.
    var faultLines: [String] {
        let promise = result.load.drain == nil ? "confirmed" : "accepted"
        return result.faults.map { fault in
            let silence = longestSilence(during: fault).map { "\(Sale.decimal($0)) s" }
            return "\(fault.words) at \(Sale.decimal(fault.from)) s: "
                + (silence.map { "at most \($0) without an order \(promise)" } ?? "no order was \(promise) to the end")
        }
    }
}
