// What a server says besides its answers. Only two things matter here; all other notices are dropped.
//
// Language: a server may speak any, so words are looked at last. The fields that name the place in the server's source are never translated.

import CLibPQ

/// The notices of one session. It belongs to the session's thread, and lives as long as the session.
final class SessionNotices {
    /// Whether the server has said, since this was last cleared, that it no longer waits for its synchronous standby. The statement's transaction has been
    /// committed at the server, but perhaps nowhere else.
    var isUnreplicated = false
    /// Whether the server has said farewell to this connection.
    private(set) var isFarewell = false

    /// Receives what this connection's server says. The session must outlive the connection.
    func listen(to link: OpaquePointer) {
        isUnreplicated = false
        isFarewell = false
        PQsetNoticeReceiver(
            link,
            { notices, result in
                guard let notices, let result else { return }
                Unmanaged<SessionNotices>.fromOpaque(notices).takeUnretainedValue().take(Notice(result))
            },
            Unmanaged.passUnretained(self).toOpaque()
        )
    }

    func take(_ notice: Notice) {
        if notice.isUnreplicatedCommit { isUnreplicated = true }
        if notice.isFarewell { isFarewell = true }
    }
}

/// The fields of one notice that are looked at.
struct Notice: Hashable, Sendable {
    /// `WARNING`, `FATAL` and so on, never translated.
    var severity: String?
    var sqlState: String?
    var message: String?
    /// The file and the function of the server's source, if the server says them.
    var file: String?
    var function: String?

    /// PostgreSQL `src/backend/replication/syncrep.c`, `SyncRepWaitForLSN`. Its warning has the SQLSTATE of any warning (01000), or 57P01 if the session ends too.
    var isUnreplicatedCommit: Bool {
        guard severity == nil || severity == "WARNING" else { return false }
        return function == "SyncRepWaitForLSN" || file == "syncrep.c" || message?.contains("synchronous replication") == true
    }

    /// An error that ends the connection, sent while no statement runs.
    var isFarewell: Bool { severity == "FATAL" || severity == "PANIC" }
}

extension Notice {
    /// Field letters: PostgreSQL documentation, "Error and Notice Message Fields".
    init(_ result: OpaquePointer) {
        func field(_ letter: Unicode.Scalar) -> String? {
            PQresultErrorField(result, Int32(letter.value)).map { String(cString: $0) }
        }
        self.init(severity: field("V"), sqlState: field("C"), message: field("M"), file: field("F"), function: field("R"))
    }
}
