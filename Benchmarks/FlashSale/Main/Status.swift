/// Exit statuses, for scripts.
enum Status {
    /// The sale was held and the audit passed.
    static let pass: Int32 = 0
    /// The sale was held and the audit failed.
    static let auditFailed: Int32 = 1
    /// The arguments or settings cannot be understood.
    static let usage: Int32 = 2
    /// The sale or the audit could not be held: a server, a store or the stack script failed.
    static let unavailable: Int32 = 3
    /// Interrupted.
    static let interrupted: Int32 = 130
}
