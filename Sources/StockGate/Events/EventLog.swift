import NIOCore
import Synchronization

/// Takes the events of all parts of the engine. A trouble is reported once, and again when its words change.
final class EventLog: Sendable {
    private let words = Mutex(EventWords())
    /// Counts the events that `tellSome` reports. They are counted separately from `words`, so that neither kind uses up the other's share of a second.
    private let findings = Mutex(EventWords())
    private let onEvent: @Sendable (EngineEvent) -> Void

    init(_ onEvent: @escaping @Sendable (EngineEvent) -> Void) { self.onEvent = onEvent }

    /// Reports an event that is news every time.
    func tell(_ event: EngineEvent) { onEvent(event) }

    /// Reports an event that is news every time and may come for very many products at once: at most `EventWords.perSecond` in a second. The next one that is
    /// reported says how many were left out.
    func tellSome(_ event: EngineEvent) {
        let now = NIODeadline.now().uptimeNanoseconds
        guard let untold = findings.withLock({ $0.admit(at: now) }) else { return }
        if untold > 0 { onEvent(.untold(untold)) }
        onEvent(event)
    }

    /// Reports a trouble, unless `text` repeats what was last said of `subject`, or too much was said in this second.
    func say(_ text: String, of subject: EventWords.Subject, _ event: EngineEvent) {
        let now = NIODeadline.now().uptimeNanoseconds
        guard let untold = words.withLock({ $0.say(text, of: subject, at: now) }) else { return }
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
    func isOver(_ subject: EventWords.Subject) -> Bool { words.withLock { $0.isOver(subject) } }
}
