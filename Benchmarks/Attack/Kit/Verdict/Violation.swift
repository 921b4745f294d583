/// Something that must never happen, and did.
public struct Violation: Sendable, Equatable {
    /// Which rule.
    public enum Rule: String, Sendable, CaseIterable {
        /// A status of 500 or more.
        case serverError = "server error"
        /// An error in another shape than the contract's.
        case errorShape = "shape of an error"
        /// An answer without `X-Request-Id`.
        case requestID = "no X-Request-Id"
        /// Bytes that are no HTTP answer.
        case malformedAnswer = "malformed answer"
        /// A connection that was closed behind an answer which did not say so.
        case unannouncedClose = "closed without notice"
        /// A connection that stayed open although it was said, or asked, that it closes.
        case leftOpen = "left open"
        /// A connection that ended without any answer.
        case noAnswer = "closed without an answer"
        /// A request without an answer on an open connection.
        case stuck = "STUCK"
        /// A request that was carried out behind an answer that closed the connection.
        case executedAfterClose = "executed after a close"
        /// A request that was carried out and not answered.
        case executedUnanswered = "executed, not answered"
        /// A request that was refused and carried out.
        case executedRefused = "executed, refused"
        /// A request that was told done and is not in the stores.
        case answeredNotExecuted = "answered, not executed"
        /// A request that is in the stores more than once.
        case executedTwice = "executed twice"
        /// An answer that belongs to no request, or comes in another's place.
        case order = "answers out of order"
        /// An outcome that neither the RFC nor the contract has for these bytes.
        case outcome = "not allowed"
        /// Two ways in that do not agree where a body ends.
        case disagreement = "two readings"
        /// Routes of one server that treat the same bytes differently.
        case difference = "routes differ"
        /// No `100 Continue` within its time, or one that nobody asked for.
        case interim = "100 Continue"
        /// Somebody else's request that was harmed.
        case bystander = "a bystander was harmed"
        /// A bound of time, memory, descriptors or connections that did not hold.
        case bound = "bound"
        /// A path that the gateway must not open.
        case access = "access"
    }

    /// The part of the attack.
    public var part: String
    /// The case.
    public var subject: String
    /// The target, or the server.
    public var place: String
    /// Which rule was broken.
    public var rule: Rule
    /// What was seen.
    public var text: String

    /// One violation.
    public init(part: String, subject: String, place: String, rule: Rule, text: String) {
        self.part = part
        self.subject = subject
        self.place = place
        self.rule = rule
        self.text = text
    }
}
