import RedisClient

/// The scripts that ship, each in its `.lua` file with its keys, arguments and replies.
enum GateScript: Int, CaseIterable, Sendable {
    case reserve, settle, release, apply, look, install, overdue, void, mend, prune, check
    /// `look`, `overdue` and `prune` for several products in one call.
    case looks, overdues, prunes

    /// The same for several products in one call, if there is such a script.
    var forSeveral: GateScript? {
        switch self {
        case .look: .looks
        case .overdue: .overdues
        case .prune: .prunes
        default: nil
        }
    }

    var source: String {
        let own = String(decoding: text, as: UTF8.self)
        switch self {
        case .looks, .overdues, .prunes: return Self.forEach(own)
        default: return own
        }
    }

    /// The source of a script that runs the script `body` for several products, one after the other. The call has the keys of each product, in their order, then as arguments
    /// the number of keys and of arguments of one product, then the arguments of each. It replies a list with each product's reply. A product whose keys
    /// cannot be used gets the error in its place, and the others are not touched by it.
    private static func forEach(_ body: String) -> String {
        """
        local function one(KEYS, ARGV)
        \(body)
        end
        local keys, arguments = tonumber(ARGV[1]), tonumber(ARGV[2])
        local replies = {}
        for product = 0, #KEYS / keys - 1 do
          local k, a = {}, {}
          for i = 1, keys do k[i] = KEYS[product * keys + i] end
          for i = 1, arguments do a[i] = ARGV[2 + product * arguments + i] end
          local isDone, reply = pcall(one, k, a)
          if not isDone then
            -- Redis' own words, as a call for this product alone would be answered: with the kind of the error, and with the script's name.
            local text = type(reply) == 'table' and reply.err or tostring(reply)
            if not string.find(text, '^%u+ ') then text = 'ERR ' .. text end
            if not string.find(text, 'user_script', 1, true) then text = text .. ' script: user_script' end
            reply = {err = text}
          end
          replies[product + 1] = reply
        end
        return replies
        """
    }

    /// The bytes of the `.lua` file; of a script for several products, of the script that it runs.
    private var text: [UInt8] {
        switch self {
        case .reserve: PackageResources.reserve_lua
        case .settle: PackageResources.settle_lua
        case .release: PackageResources.release_lua
        case .apply: PackageResources.apply_lua
        case .look, .looks: PackageResources.look_lua
        case .install: PackageResources.install_lua
        case .overdue, .overdues: PackageResources.overdue_lua
        case .void: PackageResources.void_lua
        case .mend: PackageResources.mend_lua
        case .prune, .prunes: PackageResources.prune_lua
        case .check: PackageResources.check_lua
        }
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
