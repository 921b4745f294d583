// Invariant: a server lives no longer than this process, however the process ends. Each server has a keeper, a small shell in a session of its own that reads
//   from a socket pair. When this process's end of the pair closes (`stop`, `deinit`, exit, crash, SIGKILL), the keeper ends the server and removes its folder.
//
// Bounds: 30 s for a server to become ready or to end; five tries to find a free port.

import Foundation
import Synchronization

/// A PostgreSQL server that belongs to this process: on loopback, on a free port, in a temporary folder.
public final class PrivatePostgres: Sendable {
    /// Why no server could be started.
    public struct Failure: Error, CustomStringConvertible {
        /// What went wrong, and what to do about it.
        public var description: String

        /// Creates a failure.
        public init(description: String) { self.description = description }
    }

    /// The server's port on 127.0.0.1.
    public let port: Int
    /// The address of the database `postgres` for the superuser `postgres`, who needs no password.
    public var url: String { "postgresql://postgres@127.0.0.1:\(port)/postgres" }
    /// The id of the postmaster; nil while the server does not run.
    public var pid: Int32? { stateLines.first.flatMap { pid_t($0) }.flatMap { Self.isAlive($0) ? $0 : nil } }
    /// The text of the server's log, for the message of a failed test.
    public var log: String { (try? String(contentsOf: folder.appending(path: "log"), encoding: .utf8)) ?? "" }

    private let folder: URL
    private let keeper: Keeper
    private static let bound: TimeInterval = 30

    /// Starts a server, and waits until it accepts connections.
    ///
    /// - Parameters:
    ///   - fsync: false makes commits cheap, but data can be lost if the machine crashes. Killing the server is safe either way.
    ///   - settings: further lines of the server's configuration, such as `max_connections = 20`
    ///   - tls: what it shows to clients that ask for TLS; nil: it speaks none.
    public static func start(
        fsync: Bool = true,
        settings: [String] = [],
        tls: PrivateCertificates.End? = nil
    ) throws -> PrivatePostgres {
        let installation = try Installation.shared()
        var lastFailure: any Error = Failure(description: "no free port")
        for _ in 0..<5 {
            do {
                return try PrivatePostgres(installation, fsync: fsync, settings: settings, tls: tls)
            } catch {
                lastFailure = error
            }
        }
        throw lastFailure
    }

    /// Starts a standby of another server, and waits until it accepts connections for reading. It follows that server as `name`: the name for
    /// `synchronous_standby_names`. `select pg_promote()` makes it a primary.
    public static func startStandby(of primary: PrivatePostgres, name: String, settings: [String] = []) throws -> PrivatePostgres {
        let installation = try Installation.shared()
        var lastFailure: any Error = Failure(description: "no free port")
        for _ in 0..<5 {
            do {
                return try PrivatePostgres(installation, fsync: false, settings: settings, tls: nil, standby: (primary, name))
            } catch {
                lastFailure = error
            }
        }
        throw lastFailure
    }

    private init(
        _ installation: Installation,
        fsync: Bool,
        settings: [String],
        tls: PrivateCertificates.End?,
        standby: (primary: PrivatePostgres, name: String)? = nil
    ) throws {
        port = try LoopbackPort.free()
        folder = try Installation.makeFolder()
        keeper = try Keeper(folder: folder, command: installation.command("postgres", ["-D", folder.path + "/data"]))
        if let standby {
            let source = "host=127.0.0.1 port=\(standby.primary.port) user=postgres application_name=\(standby.name)"
            // `-R` writes down whom the standby follows.
            let copy = ["-d", source, "-D", folder.path + "/data", "-X", "stream", "-R", "-c", "fast", "--no-sync"]
            try Installation.run(installation.command("pg_basebackup", copy))
        } else {
            try Installation.run(["/bin/cp", "-a", "--reflink=auto", installation.template.path + "/data", folder.path + "/data"])
        }
        if let tls { try show(tls) }
        let lines =
            [
                "listen_addresses = '127.0.0.1'", "port = \(port)", "unix_socket_directories = ''", "fsync = \(fsync ? "on" : "off")",
                "shared_buffers = 64MB", "max_connections = 100", "logging_collector = off", "log_min_messages = warning",
                "autovacuum_naptime = 10s", "max_wal_size = 1GB",
            ] + (tls == nil ? [] : ["ssl = on"]) + settings
        let file = try FileHandle(forWritingTo: folder.appending(path: "data/postgresql.auto.conf"))
        try file.seekToEnd()
        try file.write(contentsOf: Data((lines.joined(separator: "\n") + "\n").utf8))
        try file.close()
        try startServer()
    }

    /// Puts a certificate and its key where the server looks for them; a server that runs takes them at its next start.
    public func show(_ tls: PrivateCertificates.End) throws {
        for (name, source) in [("server.crt", tls.certificate), ("server.key", tls.key)] {
            let target = folder.appending(path: "data/\(name)")
            try Data(contentsOf: URL(filePath: source)).write(to: target)
            // The server refuses a key that others can read.
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: target.path)
            if geteuid() == 0, let user = getpwnam("postgres") { _ = chown(target.path, user.pointee.pw_uid, user.pointee.pw_gid) }
        }
    }

    /// Ends the server at once and removes its folder. The end of the last reference does the same.
    public func stop() {
        // A paused process handles no signal except SIGKILL and SIGCONT.
        resume()
        keeper.end()
    }

    /// Kills the server and all its processes with SIGKILL, and waits until they have ended. ``restart()`` starts it again with the same port and data.
    public func kill() {
        guard let server = pid else { return }
        // All die in one moment, as in a power cut, because they are stopped before the first is killed. A session that outlives its postmaster ends in order: it
        // rolls back and frees what it had locked, which another session may then see.
        Glibc.kill(server, SIGSTOP)
        let all = [server] + children(of: server)
        for signal in [SIGSTOP, SIGKILL] {
            for id in all { Glibc.kill(id, signal) }
        }
        Self.wait { all.allSatisfy { !Self.isAlive($0) } }
    }

    /// Pauses all the server's processes (SIGSTOP): connections stay open, but nothing answers.
    public func pause() {
        guard let server = pid else { return }
        Glibc.kill(server, SIGSTOP)
        for id in children(of: server) { Glibc.kill(id, SIGSTOP) }
    }

    /// Lets a paused server continue.
    public func resume() {
        guard let server = pid else { return }
        for id in children(of: server) { Glibc.kill(id, SIGCONT) }
        Glibc.kill(server, SIGCONT)
    }

    /// Starts a killed server again, after killing it if it runs, and waits until it accepts connections.
    public func restart() throws {
        kill()
        try startServer()
    }

    // MARK: Backups

    /// Backs a database up with `pg_dump`.
    /// - Returns: the path of the file, which is removed together with the server
    public func dump(_ database: String) throws -> String {
        let file = folder.appending(path: "dump-\(database)-\(UUID().uuidString)")
        try Installation.run(Installation.shared().command("pg_dump", place + ["-Fc", "-f", file.path, database]))
        return file.path
    }

    /// Restores a backup beside a database, ends all sessions of that database, and puts the restored one in its place. For a moment there is no such database.
    public func restore(_ database: String, from file: String) throws {
        let installation = try Installation.shared()
        let restored = database + "_restored"
        try Installation.run(installation.command("createdb", place + [restored]))
        try Installation.run(installation.command("pg_restore", place + ["-d", restored, file]))
        try Installation.run(installation.command("dropdb", place + ["--force", "--maintenance-db=template1", database]))
        let rename = "alter database \(restored) rename to \(database)"
        try Installation.run(installation.command("psql", place + ["-d", "template1", "-q", "-c", rename]))
    }

    /// Copies the server's files, runs `body` on the server, and puts the copy in its place, as whoever restores a volume's snapshot does.
    public func putBack(after body: () throws -> Void) throws {
        let (data, copy) = (folder.appending(path: "data").path, folder.appending(path: "copy").path)
        kill()
        try Installation.run(["/bin/cp", "-a", "--reflink=auto", data, copy])
        try startServer()
        try body()
        kill()
        try FileManager.default.removeItem(atPath: data)
        try FileManager.default.moveItem(atPath: copy, toPath: data)
        try startServer()
    }

    /// Where the server is, for PostgreSQL's own programs.
    private var place: [String] { ["-h", "127.0.0.1", "-p", String(port), "-U", "postgres"] }

    // MARK: The server's processes

    private func startServer() throws {
        // The old file would make the server look ready.
        try? FileManager.default.removeItem(at: folder.appending(path: "data/postmaster.pid"))
        try keeper.order("start")
        // Line 8 of the file says "ready" when the server accepts connections (PostgreSQL `src/include/utils/pidfile.h`).
        let isReady = Self.wait {
            let lines = self.stateLines
            return lines.count >= 8 && lines[7].hasPrefix("ready")
        }
        guard isReady else { throw Failure(description: "the private PostgreSQL did not get ready: \(log)") }
    }

    private var stateLines: [Substring] {
        guard let text = try? String(contentsOf: folder.appending(path: "data/postmaster.pid"), encoding: .utf8) else { return [] }
        return text.split(separator: "\n", omittingEmptySubsequences: false)
    }

    private func children(of parent: pid_t) -> [pid_t] {
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return entries.compactMap { pid_t($0) }.filter { Self.processState($0)?.parent == parent }
    }

    static func isAlive(_ id: pid_t) -> Bool { processState(id).map { $0.state != "Z" && $0.state != "X" } ?? false }

    /// Reads `/proc/N/stat`. The state's letter and the parent stand behind the name, which is in parentheses.
    private static func processState(_ id: pid_t) -> (state: Substring, parent: pid_t)? {
        guard let text = try? String(contentsOfFile: "/proc/\(id)/stat", encoding: .utf8), let end = text.lastIndex(of: ")") else {
            return nil
        }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count >= 2, let parent = pid_t(fields[1]) else { return nil }
        return (fields[0], parent)
    }

    @discardableResult
    static func wait(until condition: () -> Bool) -> Bool {
        let end = Date().addingTimeInterval(bound)
        while !condition() {
            if Date() > end { return false }
            usleep(2000)
        }
        return true
    }

    // MARK: The keeper

    /// The shell that lives slightly longer than this process, to clean up after it.
    final class Keeper: Sendable {
        private let line: Mutex<FileHandle?>
        private let folder: URL

        /// - Parameter command: the command that `start` runs; its output goes to the file `log` in the folder
        init(folder: URL, command: [String]) throws {
            self.folder = folder
            let script = """
                trap '' INT TERM HUP
                folder=$1; shift; server=
                while read order; do
                    if [ -n "$server" ]; then wait "$server"; fi
                    "$@" >>"$folder/log" 2>&1 </dev/null &
                    server=$!
                done
                if [ -n "$server" ]; then
                    # Immediate shutdown; if that is not done in ten seconds, harder means.
                    kill -CONT "$server" 2>/dev/null; kill -QUIT "$server" 2>/dev/null
                    (sleep 10; kill -KILL "$server" 2>/dev/null) & clock=$!
                    wait "$server"; kill -KILL "$clock" 2>/dev/null
                fi
                rm -rf "$folder"
                """
            // The sockets are made close-on-exec: a child that inherited this process's end would keep the server alive.
            var ends: [Int32] = [-1, -1]
            guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
                throw Failure(description: "no socket pair")
            }
            let reading = FileHandle(fileDescriptor: ends[0], closeOnDealloc: true)
            let writing = FileHandle(fileDescriptor: ends[1], closeOnDealloc: true)
            let process = Process()
            process.executableURL = URL(filePath: "/usr/bin/setsid")
            process.arguments = ["--wait", "/bin/sh", "-c", script, "keeper", folder.path] + command
            process.currentDirectoryURL = folder
            process.standardInput = reading
            process.standardOutput = FileHandle.nullDevice
            process.standardError = FileHandle.nullDevice
            try process.runWithAllSignals()
            try reading.close()
            line = Mutex(writing)
        }

        deinit {
            line.withLock { try? $0?.close() }
        }

        func order(_ word: String) throws {
            try line.withLock { try $0?.write(contentsOf: Data((word + "\n").utf8)) }
        }

        /// Ends the server, and waits, within the bound, until the folder is removed.
        func end() {
            line.withLock { line in
                try? line?.close()
                line = nil
            }
            PrivatePostgres.wait { !FileManager.default.fileExists(atPath: self.folder.path) }
        }
    }

    // MARK: The installation

    /// The server's programs, and a data folder that this process makes once and every server copies.
    struct Installation: Sendable {
        let programs: String
        let template: URL
        private let keeper: Keeper

        private static let made = Mutex<Installation?>(nil)

        static func shared() throws -> Installation {
            try made.withLock { made in
                if let made { return made }
                let installation = try Installation()
                made = installation
                return installation
            }
        }

        private init() throws {
            programs = try Self.findPrograms()
            template = try Self.makeFolder()
            // This keeper removes the template when this process ends.
            keeper = try Keeper(folder: template, command: ["/bin/true"])
            try Self.run(
                command(
                    "initdb",
                    [
                        "-D", template.path + "/data", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync",
                        "--no-instructions",
                    ]
                )
            )
        }

        /// The program's command line. Under root it runs as the user `postgres`, because the server refuses to run as root.
        func command(_ program: String, _ arguments: [String]) -> [String] {
            let asUser = geteuid() == 0 ? ["/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] : []
            return asUser + [programs + "/" + program] + arguments
        }

        static func makeFolder() throws -> URL {
            let folder = FileManager.default.temporaryDirectory.appending(path: "private-postgres-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            if geteuid() == 0 {
                guard let user = getpwnam("postgres"), chown(folder.path, user.pointee.pw_uid, user.pointee.pw_gid) == 0 else {
                    throw Failure(description: "there is no user postgres; install the package postgresql")
                }
            }
            return folder
        }

        /// `STOCKGATE_POSTGRES_BIN`, or the newest version where Debian's packages put them.
        private static func findPrograms() throws -> String {
            if let named = ProcessInfo.processInfo.environment["STOCKGATE_POSTGRES_BIN"] { return named }
            let base = "/usr/lib/postgresql"
            let versions = ((try? FileManager.default.contentsOfDirectory(atPath: base)) ?? []).compactMap { Int($0) }.sorted(by: >)
            for version in versions where FileManager.default.isExecutableFile(atPath: "\(base)/\(version)/bin/initdb") {
                return "\(base)/\(version)/bin"
            }
            throw Failure(
                description: "PostgreSQL's server programs are missing: install the package postgresql, or set STOCKGATE_POSTGRES_BIN"
            )
        }

        static func run(_ command: [String]) throws {
            let process = Process()
            let output = Pipe()
            process.executableURL = URL(filePath: command[0])
            process.arguments = Array(command.dropFirst())
            process.currentDirectoryURL = FileManager.default.temporaryDirectory
            process.standardInput = FileHandle.nullDevice
            process.standardOutput = output
            process.standardError = output
            try process.run()
            try output.fileHandleForWriting.close()
            let text = String(decoding: try output.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
            process.waitUntilExit()
            guard process.terminationStatus == 0 else { throw Failure(description: "\(command[0]) failed: \(text)") }
        }
    }
}
