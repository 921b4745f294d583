/// What became of a case at a target.
enum Outcome: String, Sendable, CaseIterable {
    /// Both requests were carried out.
    case answered
    /// The first was carried out, and the connection closed with notice.
    case answeredClosed = "answered, closed"
    /// There was one request to carry out, and it was.
    case answeredAlone = "answered alone"
    /// The first was carried out, what follows was refused.
    case answeredRefused = "answered, then refused"
    /// The first was refused, and the connection closed with notice.
    case refusedClosed = "refused, closed"
    /// The first was refused, the second carried out.
    case refusedKept = "refused, kept"
    /// Both were refused.
    case refusedTwice = "refused twice"
    /// There was one request, and it was refused.
    case refusedAlone = "refused alone"
    /// Closed without an answer.
    case closedSilently = "closed without an answer"
    /// Something that is not HTTP/1.1 came, and the connection was closed.
    case plainBody = "an answer without a head, closed"
    /// The rest of the request was waited for until the client had finished sending.
    case waited = "waited for"
    /// A request got no answer on an open connection.
    case stuck = "STUCK"
    /// More answers than requests, or something that is no answer.
    case garbled = "GARBLED"
}

/// What may become of a case.
struct Allowed: Sendable, Equatable {
    let outcomes: Set<Outcome>

    private init(_ outcomes: Outcome...) {
        self.outcomes = Set(outcomes)
    }

    private init(_ outcomes: Set<Outcome>) {
        self.outcomes = outcomes
    }

    /// The end of the first request cannot be known: the request is refused, and the connection closed.
    static let refused = Allowed(.refusedClosed)
    /// The end of the first request is known: the request is refused, and what follows is judged by itself.
    static let refusedAny = Allowed(.refusedClosed, .refusedKept)
    /// The first request is refused, and what follows is no request.
    static let refusedAll = Allowed(.refusedClosed, .refusedTwice)
    /// Both requests are carried out.
    static let answered = Allowed(.answered)
    /// The first is carried out, the second only if the server does not say that it closes.
    static let answeredAny = Allowed(.answered, .answeredClosed)
    /// The first is carried out, and the connection closed.
    static let closing = Allowed(.answeredClosed)
    /// The RFC leaves the choice to the server, as long as every reader ends the body at the same byte.
    static let either = Allowed(.answered, .answeredClosed, .refusedClosed, .refusedKept)
    /// The first request is carried out; or it is refused and the connection closed, because readers may differ on where the next one begins.
    static let answeredOrRefused = Allowed(.answered, .refusedClosed)
    /// The first is carried out, behind it is no request.
    static let answeredThenRefused = Allowed(.answeredRefused)
    /// There is one request, carried out or refused.
    static let alone = Allowed(.answeredAlone, .answeredClosed, .refusedAlone, .refusedClosed)
    static let answeredAlone = Allowed(.answeredAlone, .answeredClosed)
    static let refusedAlone = Allowed(.refusedAlone, .refusedClosed)
    /// The connection waits for what was announced, and ends when the client does.
    static let waited = Allowed(.waited)
    /// The bytes are no HTTP: they are refused, or the connection is closed.
    static let foreign = Allowed(.refusedClosed, .closedSilently)

    /// HTTP/0.9 as it was answered once: the body alone.
    static let plain = Allowed(.plainBody)

    /// These outcomes, and those of another.
    func or(_ other: Allowed) -> Allowed { Allowed(outcomes.union(other.outcomes)) }
}

/// One row of the table: bytes that a careless, an old or a hostile client sends.
struct FramingCase: Sendable {
    /// What is special about its judgement.
    struct Traits: OptionSet, Sendable {
        let rawValue: Int
        /// The first request changes nothing, however it is read.
        static let changesNothing = Traits(rawValue: 1)
        /// The first request may be counted under another key or buyer than its own.
        static let keyIsUnclear = Traits(rawValue: 2)
        /// The rest of what is announced is never sent.
        static let isIncomplete = Traits(rawValue: 4)
        /// Routes of one server may treat it differently: it is their rule, not the reader's.
        static let mayDiffer = Traits(rawValue: 8)
        /// `100 Continue` must come within its time, or a refusal.
        static let wantsContinue = Traits(rawValue: 16)
        /// The product server may refuse the request as one that only callers on this machine may send; such a refusal is as good as any answer.
        static let guarded = Traits(rawValue: 32)
        /// An interim answer is allowed and not asked for.
        static let mayContinue = Traits(rawValue: 64)
        /// The answer may carry another name than the one the first request gave.
        static let idIsUnclear = Traits(rawValue: 128)
    }

    let number: Int
    let name: String
    let servers: Allowed
    let gateway: Allowed
    let traits: Traits
    /// Final answers that an open connection owes.
    let answers: Int
    /// The first request's method, where its answer depends on it.
    let method: String?
    let steps: @Sendable (Draft, Draft) -> [Step]

    func allowed(at target: Target) -> Allowed {
        let allowed = target.isGateway ? gateway : servers
        return target.isProduct && traits.contains(.guarded) ? allowed.or(.refusedAny) : allowed
    }
}
