extension Audit {
    /// The audits of several products as one, with what the buyers saw.
    init(of parts: [(product: Int64, audit: Audit)], load: LoadFigures) {
        let audits = parts.map(\.audit)
        func sum(_ value: (Audit) -> Int64) -> Int64 { audits.reduce(0) { $0 + value($1) } }
        basis = audits.first?.basis ?? .none
        remarks = audits.first?.remarks ?? []
        initial = sum(\.initial)
        confirmed = Self.sum(audits.map(\.confirmed))
        soldOut = load.soldOut
        failed = load.failed
        errors = load.errors
        oversold = Self.sum(audits.map(\.oversold))
        leaked = sum(\.leaked)
        unmatched = audits.reduce(0) { $0 + $1.unmatched }
        lostAnswers = audits.reduce(0) { $0 + $1.lostAnswers }
        offenders = Array(audits.flatMap(\.offenders).prefix(OrderMatching.offenderLimit))
        wrongAnswers = audits.reduce(0) { $0 + $1.wrongAnswers }
        // Answers without an order are held against every product: they are counted once.
        let keys = load.told.soldOut.count
        answersChecked = audits.reduce(0) { $0 + $1.answersChecked } - keys * max(0, audits.filter { $0.basis == .stores }.count - 1)
        pending = sum(\.pending)
        // The products' differences are not added up: one product's surplus would hide another's lack.
        drift = audits.contains { $0.drift == nil } ? nil : audits.reduce(0) { $0 + Int64(clamping: ($1.drift ?? 0).magnitude) }
        outbox = audits.first?.outbox
        findings = parts.flatMap { part in part.audit.findings.map { parts.count > 1 ? "product \(part.product): \($0)" : $0 } }
    }

    /// The sum, not known where a part of it is not.
    private static func sum(_ values: [Int64?]) -> Int64? {
        values.contains { $0 == nil } ? nil : values.reduce(0) { $0 + ($1 ?? 0) }
    }

    /// The audit with what the buyers found out by themselves.
    func adding(_ load: LoadFigures) -> Audit {
        guard load.conflicts > 0 else { return self }
        var copy = self
        copy.findings.append("duplicates: \(load.conflicts) keys were answered in two ways")
        copy.findings += load.conflictExamples.prefix(OrderMatching.exampleLimit).map { "  \($0)" }
        return copy
    }
}
