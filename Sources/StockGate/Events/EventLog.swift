import NIOCore
import Synchronization

/// Where all parts of the engine tell what happens. A trouble is said once until its words change.
final class EventLog: Sendable {
    private let words = Mutex(EventWords())
    private let onEvent: @Sendable (EngineEvent) -> Void

    init(_ onEvent: @escaping @Sendable (EngineEvent) -> Void) { self.onEvent = onEvent }

    /// Tells of what is news each time.
    func tell(_ event: EngineEvent) { onEvent(event) }

    /// Tells of a trouble, unless `text` is what was said of `subject` last, or too much was said in this second.
    func say(_ text: String, of subject: EventWords.Subject, _ event: EngineEvent) {
        let now = NIODeadline.now().uptimeNanoseconds
        guard let untold = words.withLock({ $0.say(text, of: subject, at: now) }) else { return }
        if untold > 0 { onEvent(.untold(untold)) }
        onEvent(event)
    }

    /// Redis failed a call, in these words.
    func redisFailed(_ failure: GateFailure) {
        say(failure.words.withoutScript, of: .redis, .redisFailed(why: failure.words))
    }

    /// The trouble is over: the same words will be news again.
    /// - Returns: whether it had been said.
    @discardableResult
    func isOver(_ subject: EventWords.Subject) -> Bool { words.withLock { $0.isOver(subject) } }
}
