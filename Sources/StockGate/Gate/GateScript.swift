import RedisClient

/// The scripts that ship, each in its `.lua` file with its keys, arguments and replies.
enum GateScript: Int, CaseIterable, Sendable {
    case reserve, settle, release, apply, look, install, overdue, void, mend, prune, check

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
            case .check: PackageResources.check_lua
            }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// Redis does not know, or does not permit, a command that the gate needs. Trying again cannot help: this needs operator action.
struct GateRefusal: Error, Sendable, CustomStringConvertible {
    /// Keys that no product has, for `Scripts/check.lua`. `tag`: their hash tag.
    static func keys(_ tag: String) -> [RedisArgument] { ["string", "hash", "set"].map { .string("sg:{\(tag)}:check:\($0)") } }

    /// Each command with Redis' own words.
    let description: String

    /// Nil if the error is no refusal.
    init?(_ command: String, _ error: any Error) {
        guard let server = (error as? RedisError)?.serverError else { return nil }
        let isRefused = ["NOPERM", "NOAUTH"].contains(server.kind.rawValue) || server.message.contains("unknown command")
        guard isRefused else { return nil }
        // Redis quotes an unknown command with its arguments, which may be long.
        description = "\(command): \(server.message.prefix(160))"
    }

    /// The reply of `Scripts/check.lua`; nil if nothing was refused.
    init?(_ reply: RedisValue, info: String) {
        let words = (reply.array ?? []).map { $0.string ?? "" }
        guard words.count >= 2 else { return nil }
        let version = info.split(whereSeparator: \.isNewline).first { $0.hasPrefix("redis_version:") }?.dropFirst(14) ?? "?"
        let commands = stride(from: 0, to: words.count - 1, by: 2).map { "\(words[$0]): \(words[$0 + 1])" }
        description = commands.joined(separator: "; ") + " (Redis \(version); 6.2 or later is needed)"
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
        // A replica refuses writes. Refusing the connection is better than failing each call later.
        guard role != "slave" else { throw RedisError(.notConnected, detail: "this Redis is a replica") }
        self.scripts = scripts
        dataset = "\(runID):\(replicationID)"
    }
}
