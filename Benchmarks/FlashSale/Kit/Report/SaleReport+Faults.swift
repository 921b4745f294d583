extension SaleReport {
    /// The times without an order confirmed (accepted, where orders are decided later) that began during the fault, in seconds, to the millisecond.
    /// `openSince` is when one began that lasted to the end of the sale, if that was long: whether it is the fault's doing or the end of the stock these figures do
    /// not tell.
    func silence(during fault: FaultSpan) -> (longest: Double, openSince: Double?) {
        let end = max(result.duration.inSeconds, fault.from)
        func milliseconds(_ seconds: Double) -> Int64 { Int64((min(max(seconds, 0), 1e9) * 1000).rounded()) }
        let silence = result.load.moments.silence(from: milliseconds(fault.from), to: milliseconds(fault.to ?? end))
        let longest = Double(silence.longest) / 1000
        guard let since = silence.openSince.map({ Double($0) / 1000 }) else { return (longest, nil) }
        // The last confirmation of a sale that ends by its orders comes a little before its end.
        return (longest, end - since > max(longest, 0.5) ? since : nil)
    }

    /// The longest such time that an order ended; nil where the longest lasted to the end of the sale.
    func longestSilence(during fault: FaultSpan) -> Double? {
        let silence = silence(during: fault)
        return silence.openSince == nil ? silence.longest : nil
    }

    /// A line for each fault.
    var faultLines: [String] {
        result.faults.map { fault in
            let silence = silence(during: fault)
            let what =
                silence.openSince.map { "no order was \(promise) from \(Sale.decimal($0)) s to the end" }
                ?? "\(silence.longest.digits(2)) s at the longest without an order \(promise)"
            return "\(fault.words) at \(Sale.decimal(fault.from)) s: \(what)"
        }
    }
}
