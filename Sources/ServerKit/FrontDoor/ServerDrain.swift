import Synchronization

/// Whether a server asks its clients to go elsewhere. Between this and its stop it still serves every request, and ends each connection behind an answer.
public final class ServerDrain: Sendable {
    private let flag = Atomic(false)

    /// Makes a server that serves.
    public init() {}

    /// Whether the drain has begun. A drain never ends.
    public var isDraining: Bool { flag.load(ordering: .relaxed) }

    /// Begins the drain.
    public func begin() { flag.store(true, ordering: .relaxed) }
}
