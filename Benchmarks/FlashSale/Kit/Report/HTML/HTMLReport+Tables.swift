// What is told in words and numbers.
extension HTMLReport {
    /// A table; the first column is text, the others are numbers.
    static func table(_ rows: [[String]], isNumbers: Bool = true) -> String {
        guard let heading = rows.first else { return "" }
        let head = heading.map { "<th>\($0.htmlEscaped)</th>" }.joined()
        let body = rows.dropFirst().map { row in "<tr>" + row.map { "<td>\($0.htmlEscaped)</td>" }.joined() + "</tr>" }.joined()
        return
            #"<div class="scroll"><table class="\#(isNumbers ? "numbers" : "words")"><thead><tr>\#(head)</tr></thead><tbody>\#(body)</tbody></table></div>"#
    }

    /// The figures at a glance.
    var tiles: String {
        let load = result.load
        let audit = result.audit
        let confirmed = load.latencies(of: .confirmed)
        var tiles: [(String, String, String)] = [
            (
                audit.confirmed == nil ? "orders accepted" : "units sold",
                audit.confirmed.map { Int($0).grouped } ?? load.confirmed.grouped,
                audit.confirmed == nil ? "to be decided later" : "of \(Int(audit.initial).grouped)"
            ),
            (
                "orders answered", load.orders.grouped,
                "\(Int(report.throughput.rounded()).grouped)/s over \(Sale.decimal(result.duration.inSeconds)) s"
            ),
        ]
        if let peak = result.points.filter({ $0.seconds > 0.2 }).map({ Double($0.orders) / $0.seconds }).max() {
            tiles.append(("best interval", "\(Int(peak).grouped)/s", "of \(Sale.decimal(result.points.first?.seconds ?? 1)) s"))
        }
        if confirmed.count > 0 {
            tiles.append(
                (
                    "p50 \(report.promise)", "\(confirmed.milliseconds(at: 50).digits(1)) ms",
                    "p99 \(confirmed.milliseconds(at: 99).digits(1)) ms"
                )
            )
        }
        tiles.append(
            ("sold twice", audit.oversold.map { Int($0).grouped } ?? "not known", audit.basis == .none ? "not audited" : "oversold units")
        )
        tiles.append(("errors", load.errors.grouped, "\(load.retries.grouped) attempts repeated"))
        return #"<section class="tiles">"#
            + tiles.map {
                #"<div class="tile"><span>\#($0.0.htmlEscaped)</span><b>\#($0.1.htmlEscaped)</b><small>\#($0.2.htmlEscaped)</small></div>"#
            }
            .joined() + "</section>"
    }

    /// Phases and outcomes.
    var outcomes: String {
        let load = result.load
        let phases = SalePhase.allCases.map { ($0.name, load.phases[$0.rawValue]) }.filter { $0.1.orders > 0 } + [("all", report.total)]
        var rows = [["", "time", "orders", "orders/s", report.promise, "sold out", "refused", "errors"]]
        for (name, phase) in phases {
            rows.append([
                name, Sale.decimal(phase.time.inSeconds) + " s", phase.orders.grouped, SaleReport.rate(phase.orders, over: phase.time),
                phase.confirmed.grouped, phase.soldOut.grouped, phase.failed.grouped, phase.errors.grouped,
            ])
        }
        var latencies = [["latency, ms", "orders"] + report.percentiles.map { "p\($0.plain)" } + ["max"]]
        func add(_ name: String, _ part: Latencies) {
            guard part.count > 0 else { return }
            latencies.append(
                [name, part.count.grouped] + report.percentiles.map { part.milliseconds(at: $0).digits(1) } + [part.maximum.digits(1)]
            )
        }
        for outcome in OrderOutcome.allCases { add(report.name(of: outcome), load.latencies(of: outcome)) }
        for (name, phase) in phases { add(name == "all" ? name : "began \(name == "outage" ? "in the outage" : name)", phase.latencies) }
        var text = Self.table(rows) + Self.table(latencies)
        if let drain = load.drain {
            text += Self.table(report.decidedLater(drain)) + "<p class=\"note\">\(SaleReport.words(drain).htmlEscaped)</p>"
        }
        for line in [report.rateLine].compactMap({ $0 }) + report.habitLines { text += "<p class=\"note\">\(line.htmlEscaped)</p>" }
        let words = [("repeated for", load.retryCauses), ("failed or given up for", load.failReasons)].filter { !$0.1.isEmpty }
        for (name, causes) in words { text += "<p class=\"note\">\(name)\(SaleReport.list(causes).htmlEscaped)</p>" }
        if let fairness = load.fairness.line(promise: report.promise) { text += "<p class=\"note\">\(fairness.htmlEscaped)</p>" }
        return text
    }

    /// What was done to the servers, by the numbers of the bands, and how long nobody bought anything.
    var faults: String {
        result.faults.isEmpty
            ? "" : "<ol class=\"faults\">" + report.faultLines.map { "<li>\($0.htmlEscaped)</li>" }.joined() + "</ol>"
    }

    /// The books.
    var audit: String {
        let audit = result.audit
        let rows = [
            ["what must be so", "found"], ["units sold twice (oversold)", audit.oversold.map { Int($0).grouped } ?? "not known"],
            ["units that stock and ledger disagree on (leaked)", Int(audit.leaked).grouped],
            ["orders whose two sides disagree (unmatched)", audit.unmatched.grouped],
            ["confirmed answers that are not in the order database", audit.lostAnswers.grouped],
            ["orders and reservations still open (pending)", Int(audit.pending).grouped],
            ["Redis less PostgreSQL, in units (drift)", audit.drift.map { Int(clamping: $0).grouped } ?? "not known"],
            ["answers to buyers that were looked up", audit.answersChecked.grouped],
        ]
        var text = "<p class=\"line \(audit.passes ? "good" : "bad")\">\(audit.line.htmlEscaped)</p>"
        if audit.basis != .none { text += Self.table(rows) }
        for remark in audit.remarks { text += "<p class=\"note\">\(remark.htmlEscaped)</p>" }
        if !audit.findings.isEmpty {
            text += "<ul class=\"bad\">" + audit.findings.map { "<li>\($0.htmlEscaped)</li>" }.joined() + "</ul>"
        }
        if !audit.offenders.isEmpty {
            let offenders = audit.offenders.prefix(50).map { [String($0.order), $0.key ?? "", $0.buyer ?? "", $0.told, $0.found] }
            text += Self.table([["order", "key", "buyer", "was told", "the stores have"]] + offenders, isNumbers: false)
            if audit.wrongAnswers > offenders.count {
                let more = (audit.wrongAnswers - offenders.count).grouped
                text +=
                    "<p class=\"note\">and \(more) more; the report of --json lists the first \(OrderMatching.offenderLimit.grouped)</p>"
            }
        }
        return text
    }

    /// Thresholds and what speaks against the harness itself.
    var verdicts: String {
        var text = ""
        if !report.verdicts.isEmpty {
            let rows = report.verdicts.map {
                [$0.requirement.text, $0.value.map($0.requirement.words) ?? "not known", $0.isMet ? "met" : "missed"]
            }
            text += Self.table([["required", "measured", ""]] + rows)
        }
        text += "<p class=\"note\">\(result.load.health.line.htmlEscaped)</p>"
        for doubt in result.load.health.doubts { text += "<p class=\"bad\">\(doubt.htmlEscaped)</p>" }
        return text
    }

    /// What happened, in order.
    var story: String {
        Self.table([["time", "what happened"]] + result.story.map { ["\($0.at.inSeconds.digits(2)) s", $0.text] }, isNumbers: false)
    }

    /// The run's settings and machine.
    var settings: String {
        func flat(_ value: ReportValue?, _ name: String) -> [[String]] {
            guard let value else { return [] }
            switch value {
            case .object(let fields): return fields.sorted { $0.key < $1.key }.flatMap { flat($0.value, $0.key) }
            case .string(let text): return [[name, text]]
            case .int(let number): return [[name, name == "memoryBytes" ? "\(number >> 20) MiB" : String(number)]]
            case .double(let number): return [[name, number.digits(2)]]
            case .bool(let flag): return [[name, flag ? "yes" : "no"]]
            case .array, .null: return []
            }
        }
        var told: Set<[String]> = []
        // The seed stands beside the settings, for scripts, and among them, for readers.
        let rows = flat(report.metadata, "").filter { told.insert($0).inserted }
        return Self.table([["", ""]] + rows, isNumbers: false)
    }
}
