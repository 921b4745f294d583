/// What came of one part of the attack.
public struct PartReport: Sendable {
    /// The part.
    public let name: String
    /// Things that were tried.
    public var cases = 0
    /// Carried out as they should be.
    public var answered = 0
    /// Refused in the contract's shape.
    public var refused = 0
    /// Ended with the connection closed.
    public var closed = 0
    /// What must not have happened.
    public var violations: [Violation] = []
    /// Figures worth a line.
    public var notes: [String] = []
    /// How long it took.
    public var took = Duration.zero

    init(name: String, took: Duration = .zero) {
        self.name = name
        self.took = took
    }

    mutating func count(_ outcome: Outcome) {
        switch outcome {
        case .answered, .answeredAlone: answered += 1
        case .answeredClosed, .answeredRefused:
            answered += 1
            closed += 1
        case .refusedClosed:
            refused += 1
            closed += 1
        case .refusedKept, .refusedTwice, .refusedAlone: refused += 1
        case .closedSilently, .plainBody, .waited: closed += 1
        case .stuck, .garbled: break
        }
    }
}
