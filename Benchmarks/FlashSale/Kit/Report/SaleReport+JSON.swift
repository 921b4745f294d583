public import Foundation

extension SaleReport {
    /// The figures as JSON, keys sorted.
    /// - Throws: an encoding error.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return try encoder.encode(figures)
    }

    /// The figures. Keys stay what they are: scripts read them.
    public var figures: ReportValue {
        let load = result.load
        let audit = result.audit
        var fields: [String: ReportValue] = [
            "product": .int(result.product),
            // What the audit was taken from.
            "audit": .string(audit.basis.rawValue),
            "pass": .bool(isWhole),
            "failure": .optional(failure),
            "initial": .int(audit.initial),
            // Null where orders were accepted, and nobody looked at what became of them.
            "confirmed": .optional(audit.confirmed),
            "soldOut": .int(audit.soldOut),
            "failed": .int(audit.failed),
            "errors": .int(audit.errors),
            "oversold": .optional(audit.oversold),
            "leaked": .int(audit.leaked),
            "unmatched": .int(audit.unmatched),
            "lostAnswers": .int(audit.lostAnswers),
            "pending": .int(audit.pending),
            // Not left out when Redis holds nothing to compare: a missing key would look like an older harness.
            "drift": .optional(audit.drift),
            "throughput": .double(throughput),
            "latencyMs": Self.milliseconds(load.latencies),
            "percentilesMs": percentiles(of: load.latencies),
            "breakerTransitions": .array(result.transitions.map(Self.transition)),
            "seconds": .double(result.duration.inSeconds),
            "orders": .int(load.orders),
            "sent": .int(load.sent),
            "retries": .int(load.retries),
            "shed": .int(load.shed),
            "stale": .int(load.stale),
            "reachedLimit": .bool(result.reachedLimit),
            "hasSettled": .bool(result.hasSettled),
            "interrupted": .bool(result.wasInterrupted),
            "phases": .object(Dictionary(uniqueKeysWithValues: SalePhase.allCases.map { ($0.name, phase(load.phases[$0.rawValue])) })),
            "outcomes": outcomes,
            "story": .array(result.story.map { .object(["atSeconds": .double($0.at.inSeconds), "text": .string($0.text)]) }),
            "findings": .array(audit.findings.map { .string($0) }),
            "remarks": .array(audit.remarks.map { .string($0) }),
            "generator": generator,
            "series": .array(result.points.map { json($0, withHistogram: false) }),
            "faults": .array(
                result.faults.map { fault in
                    .object([
                        "server": .string(fault.server), "what": .string(fault.what), "fromSeconds": .double(fault.from),
                        "toSeconds": fault.to.map { .double($0) } ?? .null,
                        "withoutSalesSeconds": longestSilence(during: fault).map { .double($0) } ?? .null,
                    ])
                }
            ),
        ]
        fields["faultsMissed"] = .array(result.faultsMissed.map { .string($0) })
        fields["answersChecked"] = .int(audit.answersChecked)
        fields["wrongAnswers"] = .int(audit.wrongAnswers)
        fields["offenders"] = .array(
            audit.offenders.map {
                .object([
                    "order": .int($0.order), "key": .optional($0.key), "buyer": .optional($0.buyer), "told": .string($0.told),
                    "found": .string($0.found),
                ])
            }
        )
        var fairness: [String: ReportValue] = ["order": load.fairness.order.map { .double($0) } ?? .null]
        if let busiest = load.fairness.busiest {
            fairness["busiest"] = .object(["buyers": .int(busiest.buyers), "sent": .double(busiest.sent), "got": .double(busiest.won)])
        }
        fields["fairness"] = .object(fairness)
        if load.duplicates > 0 { fields["duplicates"] = .object(["sent": .int(load.duplicates), "conflicts": .int(load.conflicts)]) }
        if !load.cancelledOrders.isEmpty || load.cancellationsFailed > 0 {
            fields["cancellations"] = .object(["cancelled": .int(load.cancelledOrders.count), "failed": .int(load.cancellationsFailed)])
        }
        if load.views > 0 {
            fields["views"] = .object([
                "count": .int(load.views), "errors": .int(load.viewErrors), "latencyMs": Self.milliseconds(load.viewLatencies),
            ])
        }
        // Only an open loop has a rate to keep.
        if load.due > 0 {
            fields["rate"] = .object(["due": .int(load.due), "sent": .int(load.sent), "attainment": .double(load.attainment)])
        }
        if let drain = load.drain {
            fields["acceptLatencyMs"] = Self.milliseconds(load.acceptLatencies)
            fields["finalLatencyMs"] = Self.milliseconds(drain.latencies)
            fields["drainSeconds"] = .double(drain.seconds)
            fields["acceptThroughput"] = .double(acceptThroughput)
            fields["drainThroughput"] = .double(drain.throughput)
            fields["outboxOpen"] = .optional(audit.outbox?.open)
            fields["deadLetters"] = .optional(audit.outbox?.dead)
        }
        if !verdicts.isEmpty { fields["requirements"] = .array(verdicts.map(\.json)) }
        if let metadata { fields["run"] = metadata }
        return .object(fields)
    }

    static func milliseconds(_ latencies: Latencies) -> ReportValue {
        .object([
            "p50": .double(latencies.milliseconds(at: 50)), "p90": .double(latencies.milliseconds(at: 90)),
            "p99": .double(latencies.milliseconds(at: 99)), "p999": .double(latencies.milliseconds(at: 99.9)),
            "max": .double(latencies.maximum),
        ])
    }

    /// By the percentile as it is written, `99.99`.
    private func percentiles(of latencies: Latencies) -> ReportValue {
        .object(Dictionary(percentiles.map { ($0.plain, .double(latencies.milliseconds(at: $0))) }) { $1 })
    }

    private var outcomes: ReportValue {
        let parts = OrderOutcome.allCases.map { outcome in
            let latencies = result.load.latencies(of: outcome)
            return (name(of: outcome), ReportValue.object(["orders": .int(latencies.count), "percentilesMs": percentiles(of: latencies)]))
        }
        return .object(Dictionary(uniqueKeysWithValues: parts))
    }

    private var generator: ReportValue {
        let health = result.load.health
        return .object([
            "threads": .int(health.threads), "cpuSeconds": .double(health.cpuSeconds), "busy": .double(health.busy),
            "busiestSecond": .double(health.busiest), "tickLagP99Ms": .double(health.tickLag.milliseconds(at: 99)),
            "sendLagP99Ms": .double(health.sendLag.milliseconds(at: 99)), "doubts": .array(health.doubts.map { .string($0) }),
        ])
    }

    private static func transition(_ transition: BreakerTransition) -> ReportValue {
        var fields: [String: ReportValue] = [
            "atSeconds": .double(transition.atSeconds), "from": .string(transition.from), "to": .string(transition.to),
            "inferred": .bool(transition.inferred),
        ]
        if let reason = transition.reason { fields["reason"] = .string(reason) }
        return .object(fields)
    }

    private func phase(_ part: LoadFigures.Phase) -> ReportValue {
        .object([
            "seconds": .double(part.time.inSeconds),
            "ownPaceSeconds": .double(part.ownPaceTime.inSeconds),
            promise: .int(part.confirmed),
            "soldOut": .int(part.soldOut),
            "failed": .int(part.failed),
            "errors": .int(part.errors),
            "ownPaceOrders": .int(part.ownPaceOrders),
            "ownPace\(promise.capitalized)": .int(part.ownPaceConfirmed),
            "latencyMs": Self.milliseconds(part.latencies),
        ])
    }
}
