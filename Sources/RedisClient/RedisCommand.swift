/// A command and its arguments, encoded when it is sent, straight into the connection's outgoing buffer.
///
/// Its description shows the name alone: arguments may be secrets.
public struct RedisCommand: Sendable, Hashable, CustomStringConvertible {
    /// The name and what follows it; never empty.
    public private(set) var arguments: [RedisArgument]

    /// - Parameters:
    ///   - name: such as `GET`.
    ///   - arguments: what follows the name.
    public init(_ name: String, _ arguments: RedisArgument...) {
        self.init(name, arguments: arguments)
    }

    /// - Parameters:
    ///   - name: such as `GET`.
    ///   - arguments: what follows the name.
    public init(_ name: String, arguments: [RedisArgument]) {
        self.arguments = []
        self.arguments.reserveCapacity(arguments.count + 1)
        self.arguments.append(.string(name))
        self.arguments.append(contentsOf: arguments)
    }

    /// The name alone.
    public var description: String {
        if case .string(let name)? = arguments.first { name } else { "?" }
    }

    /// `EVALSHA`: runs a script that the server knows, else it fails with `NOSCRIPT`.
    /// - Parameters:
    ///   - sha: the script's SHA-1 in lower-case hexadecimal, as `SCRIPT LOAD` returned it.
    ///   - keys: `KEYS` of the script.
    ///   - arguments: `ARGV` of the script.
    public static func evalSHA(_ sha: String, keys: [RedisArgument] = [], arguments: [RedisArgument] = []) -> RedisCommand {
        var all: [RedisArgument] = []
        all.reserveCapacity(2 + keys.count + arguments.count)
        all.append(.string(sha))
        all.append(.integer(Int64(keys.count)))
        all.append(contentsOf: keys)
        all.append(contentsOf: arguments)
        return RedisCommand("EVALSHA", arguments: all)
    }

    /// `SCRIPT LOAD`: replies with the script's SHA-1.
    public static func scriptLoad(_ source: String) -> RedisCommand { RedisCommand("SCRIPT", "LOAD", .string(source)) }

    /// `PING`: replies `PONG`.
    public static var ping: RedisCommand { RedisCommand("PING") }

    /// `INFO` of one section, such as `server` or `replication`.
    public static func info(_ section: String) -> RedisCommand { RedisCommand("INFO", .string(section)) }

    /// `GET`.
    public static func get(_ key: String) -> RedisCommand { RedisCommand("GET", .string(key)) }

    /// `SET` without options.
    public static func set(_ key: String, _ value: RedisArgument) -> RedisCommand { RedisCommand("SET", .string(key), value) }

    /// `SELECT`: the number of the database.
    public static func select(_ database: Int) -> RedisCommand { RedisCommand("SELECT", .integer(Int64(database))) }

    /// `AUTH`, with a user name (ACL) or, without one, for the default user.
    public static func auth(username: String?, password: String) -> RedisCommand {
        if let username { RedisCommand("AUTH", .string(username), .string(password)) } else { RedisCommand("AUTH", .string(password)) }
    }
}
