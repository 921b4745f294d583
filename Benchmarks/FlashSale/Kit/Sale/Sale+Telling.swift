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

    /// Tells the story as it goes, takes the points, and draws the panel, until cancelled.
    func show(_ load: Load, product: Int64, units: Int) async throws {
        var shown = Duration.zero
        var drawn = Duration.zero
        var last: LoadGenerator.Look?
        while !Task.isCancelled {
            try await Task.sleep(for: .milliseconds(100))
            for line in log.linesToTell(all: false) { console.story(line.rendered) }
            if log.now - shown >= settings.interval {
                let look = try await load.look()
                let point = SalePoint(look, seconds: max((look.elapsed - shown).inSeconds, 0.001), log: log)
                shown = look.elapsed
                last = look
                log.add(point)
                // Where no panel can be drawn: a line of its own, in its order among those of the story, some of which come late.
                if !console.isTerminal { log.pass(liveLine(look, point), at: look.elapsed) }
            }
            guard let terminal = console.terminal, log.now - drawn >= .milliseconds(250) else { continue }
            drawn = log.now
            console.draw(Panel(view: view(last, load: load, product: product, units: units), terminal: terminal).lines)
        }
    }

    private func view(_ look: LoadGenerator.Look?, load: Load, product: Int64, units: Int) -> Panel.View {
        var view = Panel.View()
        view.title = "Flash sale of product \(product)" + (settings.products > 1 ? " and \(settings.products - 1) more" : "")
        view.elapsed = log.now.inSeconds
        view.points = log.points
        view.sold = load.soldFraction
        (view.progress, view.left) = progress(elapsed: view.elapsed, load: load, points: view.points)
        if let look {
            view.outcomes = look.totals.outcomes
            view.shed = look.totals.shed
            view.stale = look.totals.stale
            view.inFlight = look.totals.inFlight
            if case .perSecond(let rate) = look.limit { view.held = "to \(Int(rate).grouped) orders/s, to keep units for what comes" }
        }
        view.breaker = log.breakerState
        view.redisIsUp = log.redisIsAlive
        (view.redisStock, view.databaseStock) = log.stock
        view.units = units
        view.faults = log.faults
        view.isAsync = settings.isAsync
        return view
    }

    /// How far the sale is, and the seconds that it is expected to take still: by its time, else by its orders and how fast they went of late.
    func progress(elapsed: Double, load: Load, points: [SalePoint]) -> (part: Double?, left: Double?) {
        let length = settings.lasts ?? settings.arrivals.open?.schedule.length
        var part: Double?
        var left: Double?
        if let length {
            part = min(1, elapsed / max(length.inSeconds, 0.001))
            left = max(0, length.inSeconds - elapsed)
        }
        if settings.orders < .max {
            let byOrders = min(1, Double(load.shared.ordersIssued) / Double(settings.orders))
            part = max(part ?? 0, byOrders)
            let recent = points.suffix(5)
            let rate = recent.reduce(0.0) { $0 + Double($1.sent) } / max(recent.reduce(0.0) { $0 + $1.seconds }, 0.001)
            let missing = Double(max(0, settings.orders - load.shared.ordersIssued))
            if rate > 0 { left = min(left ?? .infinity, missing / rate) }
        }
        return (part, left)
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
        if look.totals.stale > 0 { line += "  stale \(look.totals.stale.grouped)" }
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
            guard columns.count > 2, let pid = Int(columns[2]) else { continue }
            // The first of several may be called with its number or without.
            if columns[0] == server || columns[0] == "\(server)-1" || "\(columns[0])-1" == server { return pid }
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
