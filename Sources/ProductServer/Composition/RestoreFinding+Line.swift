import StockGate

extension RestoreFinding {
    /// What was found for the product, what came of it, and what is left to do, in one line.
    var line: String {
        let redis =
            "Redis fence \(redisFence.map(String.init(describing:)) ?? "unknown") and \(counter.map { "stock \($0)" } ?? "no stock")"
        let what =
            switch difference {
            case .redisAhead: "Redis is ahead of the ledger"
            case .other: "Redis and the ledger differ"
            case .foreign(let theirs): "Redis holds the data of another ledger, \(theirs)"
            case .unreadable(let words): "what Redis holds cannot be read (\(words))"
            }
        let then =
            switch outcome {
            case .installed(let state): "mended: installed under fence \(state.fence) with stock \(state.stock)"
            case .newer: "mended: a newer install is in"
            case .notNeeded, .productMissing: "nothing to do any more"
            case .foreign:
                "NOT mended: it is sold without Redis; if that ledger is no more, delete the keys sg:{\(product)}:*, else give each ledger a Redis of its own"
            case .failed, nil: "NOT mended: \(failure?.words ?? "Redis or the ledger did not answer"); run the command again"
            }
        return "product \(product): \(what): ledger fence \(fence) and stock \(stock), \(redis): \(then)"
    }
}
