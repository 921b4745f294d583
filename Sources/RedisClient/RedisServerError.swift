/// An error reply of Redis: `-KIND rest of the message`.
public struct RedisServerError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The reply without the leading `-`, as Redis sent it. It may quote arguments of the command.
    public let message: String

    /// - Parameter message: the reply without the leading `-`.
    public init(_ message: String) {
        self.message = message
    }

    /// The first word of the message (`LOADING`, `READONLY`, `NOSCRIPT`, `OOM`, `ERR`, …): what Redis clients switch over.
    public var kind: Kind {
        Kind(rawValue: String(message.prefix { $0 != " " }))
    }

    /// Whether the server has refused a write because it is a replica. Redis 6 puts its own words around those of a command that a script calls.
    public var isReadOnly: Bool { kind == .readOnly || (kind == .err && message.contains("-READONLY ")) }

    /// The message.
    public var description: String { message }

    /// The first word of an error reply. Scripts and modules may invent their own, so the set is open.
    public struct Kind: RawRepresentable, Sendable, Hashable, CustomStringConvertible {
        /// The word as Redis sends it, in capitals.
        public let rawValue: String

        /// - Parameter rawValue: the word as Redis sends it, in capitals.
        public init(rawValue: String) {
            self.rawValue = rawValue
        }

        /// The word.
        public var description: String { rawValue }

        /// Any error without a kind of its own; an error raised inside a script is often this.
        public static let err = Kind(rawValue: "ERR")
        /// The dataset is being read from disk.
        public static let loading = Kind(rawValue: "LOADING")
        /// A write was sent to a replica.
        public static let readOnly = Kind(rawValue: "READONLY")
        /// `EVALSHA` of a script that the server does not know.
        public static let noScript = Kind(rawValue: "NOSCRIPT")
        /// `maxmemory` is reached and nothing may be evicted.
        public static let outOfMemory = Kind(rawValue: "OOM")
        /// The cluster does not serve this slot.
        public static let clusterDown = Kind(rawValue: "CLUSTERDOWN")
        /// The slot belongs to another node.
        public static let moved = Kind(rawValue: "MOVED")
        /// The slot is on its way to another node.
        public static let ask = Kind(rawValue: "ASK")
        /// Keys of several slots while the slot is on its way.
        public static let tryAgain = Kind(rawValue: "TRYAGAIN")
        /// A replica lost its master and may not answer from old data.
        public static let masterDown = Kind(rawValue: "MASTERDOWN")
        /// Snapshots fail and writes are refused for it.
        public static let misconfigured = Kind(rawValue: "MISCONF")
        /// Too few replicas are connected for a write.
        public static let noReplicas = Kind(rawValue: "NOREPLICAS")
        /// A script runs for too long.
        public static let busy = Kind(rawValue: "BUSY")
        /// The connection is not authenticated.
        public static let noAuth = Kind(rawValue: "NOAUTH")
        /// Wrong user or password.
        public static let wrongPassword = Kind(rawValue: "WRONGPASS")
        /// The key holds a value of another type.
        public static let wrongType = Kind(rawValue: "WRONGTYPE")

        /// Whether Redis refuses a command of this kind before it runs anything of it. With every other kind a script may have written something before it
        /// failed, and Redis keeps that.
        /// A script's own nested call may raise `OOM`, `READONLY`, `MISCONF` or `NOREPLICAS` too; Redis 7 raises those at a script's first write
        /// at the latest, so nothing was written then either.
        public var isRefusedBeforeExecution: Bool {
            switch self {
            case .loading, .readOnly, .noScript, .outOfMemory, .clusterDown, .moved, .ask, .tryAgain, .masterDown, .misconfigured,
                .noReplicas,
                .busy, .noAuth, .wrongPassword:
                true
            default: false
            }
        }
    }
}
