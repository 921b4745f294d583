// A proxy runs on one event loop, so its state needs no lock.
//
// Invariants
// - Bytes leave in the order in which they came, each at most once. The proxy never makes up bytes.
// - Each direction of a connection holds at most `bufferLimit` bytes, plus one read. Beyond that the proxy stops reading, so that TCP holds back the sender.
// - Latency delays bytes without a limit on their rate: what came within a millisecond leaves within a later millisecond. Only `bufferLimit` limits the
//   throughput, to that many bytes per latency and direction. Jitter and bandwidth: `FaultProxyPace`.
// Bounds: `maximumConnections` at a time; more are reset.

import Foundation
public import NIOCore
public import NIOPosix

/// A TCP proxy on loopback that makes the network in front of a server slow, silent or broken.
///
/// ```swift
/// let proxy = try await FaultProxy.start(to: redis.port)
/// try await proxy.delay(toClient: .milliseconds(200))
/// try await proxy.heal()
/// ```
public final class FaultProxy: Sendable {
    /// The direction of bytes through the proxy.
    public enum Direction: Sendable {
        /// From the client to the server.
        case toServer
        /// From the server to the client.
        case toClient
    }

    /// What the proxy has counted since its start.
    public struct Snapshot: Sendable, Hashable {
        /// Connections that are open.
        public internal(set) var connections = 0
        /// Connections that were accepted.
        public internal(set) var accepted = 0
        /// Connections that were cut with RST by ``FaultProxy/reset()``.
        public internal(set) var reset = 0
        /// Bytes that were passed to the server.
        public internal(set) var bytesToServer = 0
        /// Bytes that were passed to clients.
        public internal(set) var bytesToClient = 0
        /// Bytes that are held back now, in both directions.
        public internal(set) var bytesHeld = 0
    }

    /// Bytes that one direction of a connection holds back before it stops reading.
    public static let bufferLimit = 4 << 20
    /// How many connections the proxy has at a time. Further ones are reset.
    public static let maximumConnections = 1_024

    /// The port on 127.0.0.1. It stays the same while connections are refused.
    public let port: Int
    private let loop: any EventLoop
    private let core: NIOLoopBound<FaultProxyCore>

    private init(port: Int, loop: any EventLoop, core: NIOLoopBound<FaultProxyCore>) {
        self.port = port
        self.loop = loop
        self.core = core
    }

    /// Starts a proxy in front of a server.
    /// - Parameters:
    ///   - server: the server's port
    ///   - host: where the server is
    ///   - port: the port to listen on; 0 takes a free one
    ///   - group: where the proxy runs, on one loop of it
    /// - Throws: what binding the port throws
    public static func start(
        to server: Int,
        host: String = "127.0.0.1",
        port: Int = 0,
        on group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton
    ) async throws -> FaultProxy {
        let loop = group.next()
        let core = try await loop.submit { NIOLoopBound(FaultProxyCore(loop: loop, host: host, server: server), eventLoop: loop) }.get()
        let port = try await loop.flatSubmit { core.value.listen(port: port) }.get()
        return FaultProxy(port: port, loop: loop, core: core)
    }

    /// Delays bytes by these times: bytes that come from now on, and those that are held already.
    public func delay(toServer: Duration = .zero, toClient: Duration = .zero) async throws {
        try await perform { $0.delay(toServer: TimeAmount(toServer), toClient: TimeAmount(toClient)) }
    }

    /// Delays bytes by up to these times more, at random for each read of a connection. They leave in the order in which they came.
    public func jitter(toServer: Duration = .zero, toClient: Duration = .zero) async throws {
        try await perform { $0.jitter(toServer: TimeAmount(toServer), toClient: TimeAmount(toClient)) }
    }

    /// Passes on at most so many bytes a second, over all connections together.
    /// - Parameters:
    ///   - toServer: from clients to the server; nil, or nothing above zero, for no limit
    ///   - toClient: from the server to clients, likewise
    public func limit(toServer: Int? = nil, toClient: Int? = nil) async throws {
        try await perform { $0.limit(toServer: toServer, toClient: toClient) }
    }

    /// Accepts connections and bytes, but passes none on.
    public func stall() async throws { try await perform { $0.stall() } }

    /// Cuts every connection now, on both sides, with RST. New connections are accepted as before.
    public func reset() async throws { try await perform { $0.reset() } }

    /// Passes on this many more bytes in one direction, over all connections together, then cuts every connection once, as ``reset()`` does.
    public func reset(afterBytes count: Int, _ direction: Direction) async throws {
        try await perform { $0.reset(afterBytes: count, direction) }
    }

    /// Refuses new connections by closing the listening socket. Open connections stay.
    public func refuse() async throws { try await loop.flatSubmit { [core] in core.value.refuse() }.get() }

    /// Ends every fault. Bytes that are held leave at once, and connections are accepted again.
    /// - Throws: if the port cannot be bound again within two seconds
    public func heal() async throws {
        let deadline = ContinuousClock.now + .seconds(2)
        while true {
            do {
                return try await loop.flatSubmit { [core, port] in core.value.heal(port: port) }.get()
            } catch  where ContinuousClock.now < deadline {
                try await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    /// The counts now.
    public func snapshot() async throws -> Snapshot {
        try await loop.submit { [core] in core.value.snapshot() }.get()
    }

    /// Cuts every connection and stops listening. The proxy cannot be used afterwards.
    public func shutdown() async throws {
        try await loop.flatSubmit { [core] in
            core.value.reset()
            return core.value.refuse()
        }.get()
    }

    private func perform(_ body: @escaping @Sendable (FaultProxyCore) -> Void) async throws {
        try await loop.submit { [core] in body(core.value) }.get()
    }
}

/// Keeps programs that this process starts from inheriting a socket: as long as they held a socket open, its peer would see it live on. To be called on the
/// channel's loop.
func closeOnExec(_ channel: any Channel) throws {
    try channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) { descriptor in
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }
}

final class FaultProxyCore {
    let loop: any EventLoop
    let host: String
    let server: Int
    private var listener: (any Channel)?
    private var links: [ObjectIdentifier: FaultProxyLink] = [:]
    private var toServer = FaultProxyPace()
    private var toClient = FaultProxyPace()
    private(set) var isStalled = false
    private var bytesUntilReset: (direction: FaultProxy.Direction, count: Int)?
    private var counted = FaultProxy.Snapshot()

    init(loop: any EventLoop, host: String, server: Int) {
        self.loop = loop
        self.host = host
        self.server = server
    }

    // MARK: Faults

    func listen(port: Int) -> EventLoopFuture<Int> {
        let bound = NIOLoopBound(self, eventLoop: loop)
        return ServerBootstrap(group: loop)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in channel.eventLoop.makeCompletedFuture { try closeOnExec(channel) } }
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try closeOnExec(channel)
                    bound.value.accepted(channel)
                }
            }
            .bind(host: "127.0.0.1", port: port)
            .map { channel in
                bound.value.listener = channel
                return channel.localAddress?.port ?? 0
            }
    }

    func delay(toServer: TimeAmount, toClient: TimeAmount) {
        self.toServer.latency = toServer
        self.toClient.latency = toClient
        drainAll()
    }

    func jitter(toServer: TimeAmount, toClient: TimeAmount) {
        self.toServer.jitter = toServer
        self.toClient.jitter = toClient
        drainAll()
    }

    func limit(toServer: Int?, toClient: Int?) {
        self.toServer.bandwidth = toServer.flatMap { $0 > 0 ? $0 : nil }
        self.toClient.bandwidth = toClient.flatMap { $0 > 0 ? $0 : nil }
        drainAll()
    }

    func stall() { isStalled = true }

    func reset() {
        bytesUntilReset = nil
        counted.reset += links.count
        for link in links.values { link.cut() }
    }

    func reset(afterBytes count: Int, _ direction: FaultProxy.Direction) { bytesUntilReset = (direction, count) }

    func refuse() -> EventLoopFuture<Void> {
        guard let listener else { return loop.makeSucceededVoidFuture() }
        self.listener = nil
        return listener.close()
    }

    func heal(port: Int) -> EventLoopFuture<Void> {
        (toServer, toClient, isStalled, bytesUntilReset) = (FaultProxyPace(), FaultProxyPace(), false, nil)
        drainAll()
        return listener == nil ? listen(port: port).map { _ in } : loop.makeSucceededVoidFuture()
    }

    func snapshot() -> FaultProxy.Snapshot {
        var snapshot = counted
        snapshot.connections = links.count
        snapshot.bytesHeld = links.values.reduce(0) { $0 + $1.toServer.bytes + $1.toClient.bytes }
        return snapshot
    }

    private func drainAll() {
        for link in links.values {
            link.toServer.drain()
            link.toClient.drain()
        }
    }

    // MARK: What connections ask and report

    /// Latency, jitter and bandwidth of a direction.
    func pace(_ direction: FaultProxy.Direction) -> FaultProxyPace { direction == .toServer ? toServer : toClient }

    /// How many of these bytes a direction takes now.
    func take(_ count: Int, _ direction: FaultProxy.Direction, at now: NIODeadline) -> Int {
        direction == .toServer ? toServer.take(count, at: now) : toClient.take(count, at: now)
    }

    /// How many of these bytes may pass before every connection is cut; nil: all of them.
    func allowance(_ direction: FaultProxy.Direction, of count: Int) -> Int? {
        guard let limit = bytesUntilReset, limit.direction == direction else { return nil }
        guard count >= limit.count else {
            bytesUntilReset?.count -= count
            return nil
        }
        return limit.count
    }

    func handedOn(_ count: Int, _ direction: FaultProxy.Direction) {
        if direction == .toServer { counted.bytesToServer += count } else { counted.bytesToClient += count }
    }

    func ended(_ link: FaultProxyLink) { links[ObjectIdentifier(link)] = nil }

    private func accepted(_ client: any Channel) {
        counted.accepted += 1
        let link = FaultProxyLink(core: self, client: client)
        guard links.count < FaultProxy.maximumConnections else { return link.cut() }
        links[ObjectIdentifier(link)] = link
        link.open()
    }
}
