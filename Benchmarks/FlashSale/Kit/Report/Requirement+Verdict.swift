extension Requirement {
    /// What came of a threshold.
    public struct Verdict: Sendable {
        /// The threshold.
        public let requirement: Requirement
        /// What was measured; nil if it could not be.
        public let value: Double?
        /// Whether the threshold was reached.
        public let isMet: Bool

        /// The verdict in words.
        var line: String {
            "require \(requirement.text): \(isMet ? "met" : "MISSED"), \(value.map { requirement.words($0) } ?? "not known")"
        }

        var json: ReportValue {
            .object(["require": .string(requirement.text), "value": value.map { .double($0) } ?? .null, "met": .bool(isMet)])
        }
    }

    /// Holds the threshold against a sale.
    public func judge(_ result: SaleResult) -> Verdict {
        let value = measure(result)
        guard let value else { return Verdict(requirement: self, value: nil, isMet: false) }
        let isMet =
            switch comparison {
            case .less: value < bound
            case .atMost: value <= bound
            case .equal: value == bound
            case .atLeast: value >= bound
            case .more: value > bound
            }
        return Verdict(requirement: self, value: value, isMet: isMet)
    }

    private func measure(_ result: SaleResult) -> Double? {
        let load = result.load
        switch metric {
        case .percentile(let percentile, let outcome):
            let latencies = outcome.map { load.latencies(of: $0) } ?? load.latencies
            return latencies.count == 0 ? nil : latencies.milliseconds(at: percentile)
        case .longest: return load.latencies.count == 0 ? nil : load.latencies.maximum
        case .mean: return load.latencies.count == 0 ? nil : load.latencies.mean
        case .orders(let kind):
            // An accepted order whose end nobody looked at is not a confirmed one.
            if kind == .confirmed, result.isAsync, load.drain == nil { return nil }
            let count =
                switch kind {
                case .errors: load.errors
                case .refused: load.failed
                case .soldout: load.soldOut
                case .confirmed: load.confirmed
                case .shed: load.shed + load.stale
                case .stale: load.stale
                case .retries: load.retries
                }
            guard isPart else { return Double(count) }
            // What was shed never became an order: it is a part of what was meant.
            let whole = kind == .shed || kind == .stale ? max(load.due, load.sent) : load.orders
            return whole == 0 ? nil : Double(count) / Double(whole)
        case .rate: return load.due == 0 ? nil : load.attainment
        case .throughput: return Double(load.orders) / max(result.duration.inSeconds, 0.001)
        case .books(let book):
            // What was not looked at is not known to be 0.
            guard result.audit.basis != .none || book == .oversold else { return nil }
            switch book {
            case .oversold: return result.audit.oversold.map { Double($0) }
            case .leaked: return Double(result.audit.leaked)
            case .unmatched: return Double(result.audit.unmatched)
            case .lost: return Double(result.audit.lostAnswers)
            case .pending: return Double(result.audit.pending)
            case .drift: return result.audit.drift.map { Double($0.magnitude) }
            }
        case .generator: return Double(load.health.doubts.count)
        }
    }

    func words(_ value: Double) -> String {
        switch metric {
        case .percentile, .longest, .mean: return "\(value.digits(3)) ms"
        case .generator: return value == 0 ? "ok" : "doubtful"
        default: return isPart ? "\((value * 100).digits(3)) %" : value.grouped
        }
    }
}
