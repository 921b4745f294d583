/// What happens to Redis.
public enum Fault: String, CaseIterable, Sendable {
    /// Killed, and started again empty.
    case kill
    /// Frozen (SIGSTOP): connections stay open, nothing answers.
    case pause
    /// Answers every call, but 200 ms later; a reserve has 50 ms.
    case slow
}
