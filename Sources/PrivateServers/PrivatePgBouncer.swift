// Invariant: the pooler lives no longer than this process, and its folder is removed with it, as with `PrivatePostgres`.

import Foundation
import Synchronization

/// A PgBouncer that belongs to this process: on loopback, on a free port, in front of one private PostgreSQL, with Debian's package `pgbouncer`.
public final class PrivatePgBouncer: Sendable {
    /// For how long a client has a session of the server.
    public enum Mode: String, Sendable { case session, transaction, statement }

    /// The TCP port.
    public let port: Int
    /// The folder of the pooler's configuration file and log.
    private let folder: URL
    private let keeper: PrivatePostgres.Keeper

    private static let program = "/usr/sbin/pgbouncer"

    /// Starts a pooler and waits until it listens.
    ///
    /// - Parameters:
    ///   - server: the port of the server behind it
    ///   - places: sessions of the server for each user and database at most
    ///   - users: who may log in, without a password
    ///   - settings: further lines of its configuration
    public static func start(
        before server: Int,
        mode: Mode = .transaction,
        places: Int = 20,
        users: [String] = ["postgres"],
        settings: [String] = []
    ) throws -> PrivatePgBouncer {
        guard FileManager.default.isExecutableFile(atPath: program) else {
            throw PrivatePostgres.Failure(description: "\(program) is missing: install the package pgbouncer")
        }
        return try PrivatePgBouncer(server, mode, places, users, settings)
    }

    private init(_ server: Int, _ mode: Mode, _ places: Int, _ users: [String], _ settings: [String]) throws {
        port = try LoopbackPort.free()
        folder = try PrivatePostgres.Installation.makeFolder()
        let lines =
            [
                "[databases]", "* = host=127.0.0.1 port=\(server)", "[pgbouncer]", "listen_addr = 127.0.0.1", "listen_port = \(port)",
                "unix_socket_dir =", "auth_type = trust", "auth_file = \(folder.path)/users", "pool_mode = \(mode.rawValue)",
                "default_pool_size = \(places)", "max_client_conn = 200", "pidfile = \(folder.path)/pid", "log_connections = 0",
                "log_disconnections = 0", "server_login_retry = 1",
            ] + settings
        for (name, text) in [("ini", lines.joined(separator: "\n")), ("users", users.map { "\"\($0)\" \"\"" }.joined(separator: "\n"))] {
            let file = folder.appending(path: name)
            try Data((text + "\n").utf8).write(to: file)
            // Readable by everybody: under root the pooler runs as PostgreSQL's user, because it refuses to run as root.
            try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: file.path)
        }
        let asUser = geteuid() == 0 ? ["/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] : []
        keeper = try PrivatePostgres.Keeper(folder: folder, command: asUser + [Self.program, folder.path + "/ini"])
        try startAgain()
    }

    deinit { stop() }

    /// The text of the pooler's log.
    public var log: String { (try? String(contentsOf: folder.appending(path: "log"), encoding: .utf8)) ?? "" }

    /// Ends the pooler at once, as a crash would, and waits until it is gone.
    public func kill() {
        guard let id = process else { return }
        _ = Glibc.kill(id, SIGKILL)
        PrivatePostgres.wait { !PrivatePostgres.isAlive(id) }
    }

    /// Starts it again on the same port, after killing it if it runs.
    public func restart() throws {
        kill()
        try startAgain()
    }

    /// Ends it and removes its folder.
    public func stop() {
        // The pooler has no data to lose, and is killed because the keeper's signal does not end it.
        kill()
        keeper.end()
    }

    private var process: pid_t? {
        let text = try? String(contentsOf: folder.appending(path: "pid"), encoding: .utf8)
        return text.flatMap { pid_t($0.trimmingCharacters(in: .whitespacesAndNewlines)) }.flatMap { PrivatePostgres.isAlive($0) ? $0 : nil }
    }

    private func startAgain() throws {
        try? FileManager.default.removeItem(at: folder.appending(path: "pid"))
        try keeper.order("start")
        // The pid file is written once it listens.
        guard PrivatePostgres.wait(until: { self.process != nil }) else {
            throw PrivatePostgres.Failure(description: "the private PgBouncer did not get ready: \(log)")
        }
    }
}
