import RedisClient

/// The scripts that ship, each in its `.lua` file with its keys, arguments and replies.
enum GateScript: Int, CaseIterable, Sendable {
    case reserve, settle, release, apply, look, install, overdue, void, mend, prune

    var source: String {
        let bytes: [UInt8] =
            switch self {
            case .reserve: PackageResources.reserve_lua
            case .settle: PackageResources.settle_lua
            case .release: PackageResources.release_lua
            case .apply: PackageResources.apply_lua
            case .look: PackageResources.look_lua
            case .install: PackageResources.install_lua
            case .overdue: PackageResources.overdue_lua
            case .void: PackageResources.void_lua
            case .mend: PackageResources.mend_lua
            case .prune: PackageResources.prune_lua
            }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// What a connection learns when it is made: the scripts' names, and which dataset Redis holds.
struct GateConnectionInfo: Sendable {
    /// SHA-1 of each script, by its raw value, as Redis computed it.
    let scripts: [String]
    /// `run_id` and the replication id: they change when the server restarts or fails over.
    let dataset: String

    /// - Parameter info: the replies to `INFO server` and `INFO replication`, joined.
    init(scripts: [String], info: String) throws(RedisError) {
        var runID: Substring?
        var replicationID: Substring?
        var role: Substring?
        for line in info.split(whereSeparator: \.isNewline) {
            if line.hasPrefix("run_id:") { runID = line.dropFirst(7) }
            if line.hasPrefix("master_replid:") { replicationID = line.dropFirst(14) }
            if line.hasPrefix("role:") { role = line.dropFirst(5) }
        }
        guard let runID, let replicationID else { throw RedisError(.protocolViolation, detail: "INFO names no run_id") }
        // A replica refuses writes; better not to be connected than to fail each call.
        guard role != "slave" else { throw RedisError(.notConnected, detail: "this Redis is a replica") }
        self.scripts = scripts
        self.dataset = "\(runID):\(replicationID)"
    }
}
