extension SlowPart {
    /// What was tried at one server.
    struct Recorder: Sendable {
        let place: String
        var cases = 0
        var answered = 0
        var closed = 0
        var violations: [Violation] = []
        var notes: [String] = []

        init(_ server: ServerProcess) {
            place = server.name
        }

        /// Tries one thing; what is thrown breaks the rule.
        mutating func attempt(_ subject: String, _ rule: Violation.Rule = .bound, _ body: (inout Recorder) throws -> Void) {
            cases += 1
            let before = violations.count
            do {
                try body(&self)
                if violations.count == before { answered += 1 }
            } catch {
                fail(subject, rule, "\(error)")
            }
        }

        mutating func fail(_ subject: String, _ rule: Violation.Rule = .bound, _ text: String) {
            violations.append(Violation(part: "slow", subject: subject, place: place, rule: rule, text: text))
        }

        /// Notes what is wrong with answers by themselves.
        mutating func check(_ subject: String, _ answers: [Answer]) {
            for (rule, text) in Judge.faults(of: answers) { fail(subject, rule, text) }
        }
    }
}

extension SlowPart.Recorder {
    mutating func join(_ other: SlowPart.Recorder) {
        cases += other.cases
        answered += other.answered
        closed += other.closed
        violations += other.violations
        notes += other.notes
    }
}

extension PartReport {
    mutating func add(_ recorder: SlowPart.Recorder) {
        cases += recorder.cases
        answered += recorder.answered
        closed += recorder.closed
        violations += recorder.violations
        notes += recorder.notes
    }
}
