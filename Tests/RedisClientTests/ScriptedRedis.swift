import NIOCore
import NIOPosix
import Synchronization

@testable import RedisClient

/// A TCP server that speaks RESP and says what a test wants. Each byte of a reply is written and flushed by itself.
final class ScriptedRedis: Sendable {
    /// What is answered to one command: RESP, or nil for silence. `closing` ends the connection.
    typealias Script = @Sendable (_ command: [String]) -> String?

    static let closing = "close"

    private struct State {
        var script: Script
        var commands: [[String]] = []
        var accepted = 0
        var channels: [ObjectIdentifier: any Channel] = [:]
        var subscribers: [ObjectIdentifier: any Channel] = [:]
    }

    let port: Int
    private let listener: any Channel
    private let state: Box

    private final class Box: Sendable {
        let value: Mutex<State>
        init(_ state: sending State) { self.value = Mutex(state) }
    }

    var endpoint: RedisEndpoint { RedisEndpoint(host: "127.0.0.1", port: self.port) }

    init(_ script: @escaping Script) async throws {
        let state = Box(State(script: script))
        listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let handler = Handler { command, channel in
                        state.value.withLock { state in
                            state.commands.append(command)
                            if command.first == "SUBSCRIBE" { state.subscribers[ObjectIdentifier(channel)] = channel }
                            return state.script
                        }(command)
                    }
                    try channel.pipeline.syncOperations.addHandler(handler)
                    state.value.withLock { state in
                        state.accepted += 1
                        state.channels[ObjectIdentifier(channel)] = channel
                    }
                    channel.closeFuture.whenComplete { _ in
                        state.value.withLock { state in
                            state.channels[ObjectIdentifier(channel)] = nil
                            state.subscribers[ObjectIdentifier(channel)] = nil
                        }
                    }
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        self.port = listener.localAddress?.port ?? 0
        self.state = state
    }

    /// From now on it says this.
    func say(_ script: @escaping Script) { state.value.withLock { $0.script = script } }

    /// Sends bytes to everyone who has subscribed.
    func push(_ text: String) {
        let subscribers = state.value.withLock { Array($0.subscribers.values) }
        for channel in subscribers { channel.writeAndFlush(ByteBuffer(string: text), promise: nil) }
    }

    /// Sends bytes to every connection, such as a reply that comes late.
    func pushToAll(_ text: String) {
        for channel in state.value.withLock({ Array($0.channels.values) }) {
            channel.writeAndFlush(ByteBuffer(string: text), promise: nil)
        }
    }

    /// Closes the connections that are open.
    func cut() async {
        for channel in state.value.withLock({ Array($0.channels.values) }) { try? await channel.close().get() }
    }

    func stop() async {
        try? await listener.close().get()
        await cut()
    }

    /// What came so far, by all connections.
    var commands: [[String]] { state.value.withLock { $0.commands } }
    var accepted: Int { state.value.withLock { $0.accepted } }
    var open: Int { state.value.withLock { $0.channels.count } }
    var subscribers: Int { state.value.withLock { $0.subscribers.count } }
    /// The commands of this name.
    func count(_ name: String) -> Int { commands.count { $0.first == name } }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let answer: ([String], any Channel) -> String?
        private let reader = ReplyReader(maximumBytes: 1 << 20, maximumElements: 1000)

        init(_ answer: @escaping ([String], any Channel) -> String?) { self.answer = answer }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard let reader else { return }
            unwrapInboundIn(data).withUnsafeReadableBytes { reader.feed($0) }
            while case .reply(let value) = reader.next() {
                guard let reply = answer((value.array ?? []).compactMap(\.string), context.channel) else { continue }
                if reply == ScriptedRedis.closing { return context.close(promise: nil) }
                for byte in reply.utf8 { context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: [byte])), promise: nil) }
            }
        }
    }
}

/// RESP texts.
enum RESP {
    static let ok = "+OK\r\n"
    static func bulk(_ text: String) -> String { "$\(text.utf8.count)\r\n\(text)\r\n" }
    static func array(_ texts: [String]) -> String { "*\(texts.count)\r\n" + texts.map(bulk).joined() }

    static let master = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
    static let replica = "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$4\r\nsync\r\n:-1\r\n"

    static func switched(_ master: String, to endpoint: RedisEndpoint) -> String {
        array(["message", "+switch-master", "\(master) 127.0.0.1 1 \(endpoint.host) \(endpoint.port)"])
    }

    /// What a sentinel says that names this master.
    static func sentinel(_ master: RedisEndpoint?, epoch: Int64? = 0, name: String = "shop") -> ScriptedRedis.Script {
        { command in
            switch command.first {
            case "SENTINEL" where command.last != name: command[1] == "MASTER" ? "-ERR No such master with that name\r\n" : "*-1\r\n"
            case "SENTINEL" where command[1] == "MASTER":
                epoch.map { array(["name", name, "flags", "master", "config-epoch", "\($0)"]) } ?? "-ERR unknown command\r\n"
            case "SENTINEL": master.map { array([$0.host, "\($0.port)"]) } ?? "*-1\r\n"
            case "SUBSCRIBE": "*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n"
            case "PING": "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
            default: ok
            }
        }
    }

    /// What a server says of itself that is, or is no, master.
    static func server(_ role: String = master) -> ScriptedRedis.Script {
        { command in
            switch command.first {
            case "ROLE": role
            case "PING": "+PONG\r\n"
            default: ok
            }
        }
    }

    // MARK: A cluster

    typealias Serving = (slots: ClosedRange<Int>, node: RedisEndpoint)

    private static func node(_ endpoint: RedisEndpoint, role: String = "master", health: String = "online") -> String {
        let texts = { (name: String, text: String) in bulk(name) + bulk(text) }
        return "*14\r\n" + texts("id", "0123") + bulk("port") + ":\(endpoint.port)\r\n" + texts("ip", endpoint.host)
            + texts("endpoint", endpoint.host) + texts("role", role) + bulk("replication-offset") + ":0\r\n" + texts("health", health)
    }

    /// The reply to `CLUSTER SHARDS`. Each shard has a replica, where nobody listens.
    static func shards(_ serving: [Serving]) -> String {
        let replica = node(RedisEndpoint(host: "127.0.0.1", port: 1), role: "replica")
        return "*\(serving.count)\r\n"
            + serving.map {
                "*4\r\n" + bulk("slots") + "*2\r\n:\($0.slots.lowerBound)\r\n:\($0.slots.upperBound)\r\n" + bulk("nodes") + "*2\r\n"
                    + replica + node($0.node)
            }.joined()
    }

    /// The reply to `CLUSTER SLOTS`.
    static func slots(_ serving: [Serving]) -> String {
        "*\(serving.count)\r\n"
            + serving.map {
                "*3\r\n:\($0.slots.lowerBound)\r\n:\($0.slots.upperBound)\r\n*3\r\n" + bulk($0.node.host) + ":\($0.node.port)\r\n"
                    + bulk("0123")
            }.joined()
    }

    /// What a node of a cluster says.
    static func cluster(
        _ serving: [Serving],
        epoch: Int64 = 1,
        state: String = "ok",
        isOld: Bool = false,
        other: @escaping ScriptedRedis.Script = { $0.first == "PING" ? "+PONG\r\n" : ok }
    ) -> ScriptedRedis.Script {
        { command in
            guard command.first == "CLUSTER" else { return other(command) }
            return switch command[1] {
            case "INFO": bulk("cluster_state:\(state)\r\ncluster_current_epoch:\(epoch)\r\n")
            case "SHARDS" where isOld: "-ERR Unknown subcommand or wrong number of arguments for 'SHARDS'. Try CLUSTER HELP.\r\n"
            case "SHARDS": shards(serving)
            case "SLOTS": slots(serving)
            default: "-ERR what?\r\n"
            }
        }
    }
}
