extension Sale {
    func opening(product: Int64, units: Int) -> String {
        let pace =
            switch settings.arrivals {
            case .concurrency(let buyers): "\(buyers) at a time"
            case .rate(let rate, let inFlight):
                "\(rate.perSecond.grouped) a second (Poisson, seed \(settings.seed)), at most \(inFlight) in flight"
            case .schedule(_, let process, let inFlight):
                "on schedule (\(process.rawValue), seed \(settings.seed)), at most \(inFlight) in flight"
            }
        let orders = settings.orders == .max ? "orders" : "at least \(settings.orders.grouped) orders"
        return "Flash sale of product \(product): \(units.grouped) units, \(orders) "
            + "by \(settings.buyers.grouped) buyers, \(pace)\(settings.isAsync ? ", accepted first and decided over the broker" : "")"
    }

    /// What buyers are told at once.
    var promise: String { settings.isAsync ? "accepted" : "confirmed" }

    func drained(_ drain: Drain) -> String {
        "          the last accepted order was decided \(Self.decimal(drain.seconds)) s after the last was accepted: "
            + "\(drain.confirmed.grouped) confirmed, \(drain.soldOut.grouped) sold out, \(drain.failed.grouped) failed, \(drain.open.grouped) open"
    }

    func show(_ load: Load) async throws {
        var shown = Duration.zero
        while !Task.isCancelled {
            try await Task.sleep(for: .milliseconds(100))
            for line in log.linesToTell(all: false) { console.story(line.rendered) }
            guard log.now - shown >= settings.interval else { continue }
            let look = try await load.look()
            let point = SalePoint(look, seconds: max((look.elapsed - shown).inSeconds, 0.001), log: log)
            shown = look.elapsed
            log.add(point)
            console.live(liveLine(look, point))
        }
    }

    /// What came after the last point.
    func addLastPoint(_ load: Load) async throws {
        let look = try await load.look()
        let before = log.points.last?.at ?? 0
        guard look.elapsed.inSeconds > before else { return }
        log.add(SalePoint(look, seconds: look.elapsed.inSeconds - before, log: log))
    }

    func liveLine(_ look: LoadGenerator.Look, _ point: SalePoint) -> String {
        let rate = Int(Double(point.orders) / point.seconds)
        let redis = log.redisIsAlive.map { $0 ? "up" : "down" } ?? "?"
        let outcomes = look.totals.outcomes
        var line =
            "  \(Self.decimal(point.at)) s  \(rate.grouped) orders/s  \(promise) \(outcomes[0].grouped)"
            + "  sold out \(outcomes[1].grouped)  errors \(outcomes[3])  p99 \(Self.decimal(point.latency[2])) ms"
            + "  breaker \(log.breakerState ?? "?")  redis \(redis)"
        if look.totals.shed > 0 { line += "  shed \(look.totals.shed.grouped)" }
        if case .perSecond(let rate) = look.limit { line += "  (held to \(Int(rate).grouped)/s)" }
        return line
    }

    func tellTheEnd(_ end: LoadGenerator.Snapshot, units: Int) {
        let sold = end.figures.unitsConfirmed
        if let last = end.figures.lastConfirmedAt {
            log.tell(
                settings.isAsync
                    ? "the last order is accepted"
                    : sold >= units ? "the last unit is sold" : "the last confirmed order; \(max(0, units - sold).grouped) units are left",
                at: last
            )
            if !settings.isAsync, let recovered = log.recoveredAt, last < recovered {
                let what = sold >= units ? "the last unit went" : "the last order was confirmed"
                log.tell("note: \(what) before the outage was over; nothing was sold after it", at: last)
            }
        }
        log.tell("sale closes", at: end.elapsed)
    }

    static func ownPace(from before: LoadFigures, to after: LoadFigures) -> Int? {
        let time = zip(after.phases, before.phases).reduce(Duration.zero) { $0 + $1.0.ownPaceTime - $1.1.ownPaceTime }
        let orders = zip(after.phases, before.phases).reduce(0) { $0 + $1.0.ownPaceConfirmed - $1.1.ownPaceConfirmed }
        return time.inSeconds < 0.1 ? nil : Int(Double(orders) / time.inSeconds)
    }

    /// The third column of the status table.
    static func pid(of server: String, in table: String) -> Int? {
        for line in table.split(separator: "\n") {
            let columns = line.split(separator: " ")
            if columns.count > 2, columns[0] == server || columns[0] == "\(server)-1", let pid = Int(columns[2]) { return pid }
        }
        return nil
    }

    static func percent(_ part: Int, of whole: Int) -> String {
        "\(part * 100 / max(whole, 1)) %"
    }

    static func decimal(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return "\(tenths / 10).\(abs(tenths % 10))"
    }
}
