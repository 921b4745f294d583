// Knows which orders nobody drives any more, because every server that may have made them is gone.
//
// Each order server that sells holds a shared advisory lock in the order database, from before it serves until its process ends. PostgreSQL releases it when the session ends, so also
// when the process is killed. A server that gets the exclusive lock besides is alone: orders that were made before it began have lost their driver. Without this, buyers who
// come again after their server was killed would wait until their order is older than any driver's time.
//
// Behind a pooler no session holds anything. There each server has a row instead, a lease that it renews; the lease of a killed server ends by itself after `lease`. A server that
// finds no other lease is alone.
//
// Invariant: `goneBefore` is a moment by the database's clock, at which this server had not made an order yet. A server that lives may be taken for gone, if its session was
//   lost for a moment. That is harmless: whoever continues its orders asks as a repeat, under the same keys.
//
// Bounds: one connection and one thread. The exclusive lock is asked for every `pause`, for `patience`: orders made before are older than their driver's time then.
// Stops: `shutdown`, when the server's own orders have ended.

import Logging
import PostgresClient
import ServerKit
import ServiceLifecycle
import StrictJSON
import Synchronization

/// Tells the orders whose server is gone.
final class Predecessors: Service, CustomStringConvertible {
    private static let pause = Duration.milliseconds(100)
    /// How often the server checks that it still holds the lock: a session that was lost has lost the lock.
    private static let interval = Duration.seconds(5)

    private let worker: PostgresWorker
    private let sign: Sign
    private let patience: Duration
    private let logger: Logger
    private let prepared: PreparedLatch
    /// Microseconds since the Unix epoch by the database's clock; before the first order of this server. Nil until the database has said it.
    private let began = Mutex<Int64?>(nil)
    private let goneBefore = Atomic<Int64>(.min)

    var description: String { "predecessors" }

    /// - Parameter patience: how long a driver may be at work on an order
    init(_ configuration: PostgresConfiguration, patience: Duration, prepared: PreparedLatch, logger: Logger) throws(PostgresError) {
        self.worker = try PostgresWorker(configuration: configuration, name: "predecessors", maximumQueued: 4)
        self.sign = configuration.pooler == .transaction ? .lease(server: String(UInt64.random(in: .min ... .max), radix: 16)) : .lock
        self.patience = patience
        self.prepared = prepared
        self.logger = logger
    }

    /// Whether nobody drives a PENDING order that was last changed at this time.
    func areGone(since changed: Timestamp) -> Bool { changed.microsecondsSinceEpoch < goneBefore.load(ordering: .acquiring) }

    /// Takes the lock and notes the time. To be called before the server makes its first order; without an answer every order counts as driven.
    func begin() async {
        do {
            let now = try await worker.perform { [sign] session in
                // The lock is taken before the time is read: a server that makes an order after that time holds the lock, or asks for it.
                try sign.hold(session)
                return try session.query(
                    "select (extract(epoch from clock_timestamp()) * 1000000)::bigint",
                    []
                ).one().decode(0, as: Int64.self)
            }
            began.withLock { $0 = now }
            _ = try await look()
        } catch {
            logger.debug("it is not known whether other order servers live", metadata: ["error": "\(error)"])
        }
    }

    func run() async throws {
        try? await cancelWhenGracefulShutdown {
            await self.prepared.wait()
            let end = ContinuousClock.now + self.patience
            var isAlone = self.goneBefore.load(ordering: .acquiring) > .min
            // Ends by cancellation.
            while !Task.isCancelled {
                if !isAlone, ContinuousClock.now < end {
                    isAlone = (try? await self.look()) ?? false
                    try await Task.sleep(for: Predecessors.pause)
                } else {
                    try? await self.hold()
                    try await Task.sleep(for: Predecessors.interval)
                }
            }
        }
    }

    func shutdown() async {
        try? await worker.perform { [sign] session in try sign.letGo(session) }
        await worker.shutdown()
    }

    private func hold() async throws {
        try await worker.perform { [sign] session in try sign.hold(session) }
    }

    /// Asks for the exclusive lock, and gives it back.
    /// - Returns: whether this server is alone
    private func look() async throws -> Bool {
        guard let began = self.began.withLock({ $0 }) else { return false }
        let isAlone = try await worker.perform { [sign] session in
            try sign.hold(session)
            return try sign.isAlone(session)
        }
        if isAlone { goneBefore.store(began, ordering: .releasing) }
        return isAlone
    }
}

/// How a server shows the others that it lives.
private enum Sign: Sendable {
    /// A lock of the session, which ends with it.
    case lock
    /// A row with a time, for a database behind a pooler.
    case lease(server: String)

    private static let name = PostgresValue.text("order servers that sell")
    /// Three times the interval at which it is renewed.
    private static let lease = PostgresValue.int(15)

    func hold(_ session: PostgresSession) throws {
        switch self {
        case .lock: _ = try session.query(Self.holdSQL, [Self.name])
        case .lease(let server): _ = try session.query(Self.renewSQL, [.text(server), Self.lease])
        }
    }

    /// Whether no other server shows a sign. To be asked after `hold`, so that of two servers that begin together at least one sees the other.
    func isAlone(_ session: PostgresSession) throws -> Bool {
        switch self {
        case .lock: try session.query(Self.aloneSQL, [Self.name]).one().decode(0, as: Bool.self)
        case .lease(let server): try session.query(Self.noOtherSQL, [.text(server)]).one().decode(0, as: Bool.self)
        }
    }

    /// The server's own orders have ended. A lock goes with its session.
    func letGo(_ session: PostgresSession) throws {
        guard case .lease(let server) = self else { return }
        _ = try session.query("delete from order_server_leases where server = $1", [.text(server)])
    }

    /// Rows of servers that have been gone for a day are taken away.
    private static let renewSQL = """
        with gone as (delete from order_server_leases where held_until < now() - interval '1 day')
        insert into order_server_leases as l (server, held_until) values ($1, now() + $2 * interval '1 s')
        on conflict (server) do update set held_until = excluded.held_until
        """
    private static let noOtherSQL = "select not exists (select from order_server_leases where server <> $1 and held_until > now())"

    /// The session has no other lock of this kind.
    private static let holdSQL = """
        select case when exists (
          select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and mode = 'ShareLock' and granted
        ) then true else pg_try_advisory_lock_shared(hashtextextended($1, 0)) end
        """
    private static let aloneSQL = """
        select case when pg_try_advisory_lock(hashtextextended($1, 0)) then pg_advisory_unlock(hashtextextended($1, 0)) else false end
        """
}
