import NIOCore
import Synchronization

/// Takes the events of all parts of the engine. A trouble is reported once, and again when its words change.
final class EventLog: Sendable {
    /// The state that the logs of all masters share.
    private final class Said: Sendable {
        let words = Mutex(EventWords())
        /// Counts the events that `tellSome` reports. They are counted separately from `words`, so that neither kind uses up the other's share of a second.
        let findings = Mutex(EventWords())
    }

    private let said: Said
    /// The cluster's master that all events are of; nil for those of the engine, and of an only Redis.
    private let master: String?
    private let onEvent: @Sendable (EngineEvent) -> Void

    init(_ onEvent: @escaping @Sendable (EngineEvent) -> Void) {
        said = Said()
        master = nil
        self.onEvent = onEvent
    }

    private init(_ said: Said, master: String, _ onEvent: @escaping @Sendable (EngineEvent) -> Void) {
        self.said = said
        self.master = master
        self.onEvent = { onEvent(.atMaster(master, $0)) }
    }

    /// The log of what happens at one master of a cluster. A trouble of Redis or of its recovery is remembered for this master alone. A trouble of a product is
    /// remembered for the product, whichever master serves it.
    func of(master: String) -> EventLog { EventLog(said, master: master, onEvent) }

    private func own(_ subject: EventWords.Subject) -> EventWords.Subject {
        switch subject {
        case .redis, .recovery: master.map { .atMaster($0, subject) } ?? subject
        case .product, .resync, .fence, .gatedProducts, .atMaster: subject
        }
    }

    /// Reports an event that is news every time.
    func tell(_ event: EngineEvent) { onEvent(event) }

    /// Reports an event that is news every time and may come for very many products at once: at most `EventWords.perSecond` in a second. The next one that is
    /// reported says how many were left out.
    func tellSome(_ event: EngineEvent) {
        let now = NIODeadline.now().uptimeNanoseconds
        guard let untold = said.findings.withLock({ $0.admit(at: now) }) else { return }
        if untold > 0 { onEvent(.untold(untold)) }
        onEvent(event)
    }

    /// Reports a trouble, unless `text` repeats what was last said of `subject`, or too much was said in this second.
    func say(_ text: String, of subject: EventWords.Subject, _ event: EngineEvent) {
        let now = NIODeadline.now().uptimeNanoseconds
        guard let untold = said.words.withLock({ $0.say(text, of: own(subject), at: now) }) else { return }
        if untold > 0 { onEvent(.untold(untold)) }
        onEvent(event)
    }

    /// A call to Redis failed, in these words.
    func redisFailed(_ failure: GateFailure) {
        say(failure.words.withoutScript, of: .redis, .redisFailed(why: failure.words))
    }

    /// A trouble is over, so that the same words will be reported again.
    /// - Returns: whether the trouble had been reported
    @discardableResult
    func isOver(_ subject: EventWords.Subject) -> Bool { said.words.withLock { $0.isOver(own(subject)) } }
}
