import NIOCore
import NIOPosix
import NIOTransportSecurity
import Synchronization
import TransportSecurity

/// Opens sockets to servers and sentinels, with TLS where it is set.
///
/// Bounds: connecting and the handshake of TLS take at most `timeout` each.
enum RedisDial {
    /// To be called on the event loop of the connection.
    /// - Parameters:
    ///   - maximumOutgoingBytes: bytes that may wait for the socket before the channel says that it is not writable.
    ///   - addHandler: adds the handler of the connection, on its loop, before it is connected.
    /// - Returns: the channel that is connected and whose server was checked
    static func open(
        _ address: RedisConfiguration.Address,
        on eventLoop: any EventLoop,
        tls: TLSByHost?,
        timeout: TimeAmount,
        maximumOutgoingBytes: Int,
        addHandler: @escaping @Sendable (any Channel) throws -> Void
    ) -> EventLoopFuture<any Channel> {
        let contexts: TLSClientContexts? = if case .tcp(let host, _) = address { tls?.contexts(of: host) } else { nil }
        let bootstrap = ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout)
            .channelOption(.socketOption(.so_keepalive), value: 1)
            .channelOption(.writeBufferWaterMark, value: .init(low: maximumOutgoingBytes / 4, high: maximumOutgoingBytes))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try contexts?.secure(channel)
                    try addHandler(channel)
                }
            }
        let attempt =
            switch address {
            case .tcp(let host, let port):
                bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1).connect(host: host, port: port)
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            case .sentinels, .cluster:
                eventLoop.makeFailedFuture(RedisError(.notConnected, detail: "no server was named")) as EventLoopFuture<any Channel>
            }
        guard contexts != nil else { return attempt }
        return attempt.flatMap { channel in TLSClientContexts.handshake(of: channel, within: timeout).map { channel } }
    }

    /// Why an attempt failed, for a log.
    static func words(_ error: any Error) -> String {
        if let error = error as? NIOConnectionError {
            if let first = error.connectionErrors.first { return String(describing: first.error) }
            return error.dnsAError.map { String(describing: $0) } ?? error.dnsAAAAError.map { String(describing: $0) }
                ?? "it has no address"
        }
        return String(describing: error)
    }
}

/// The TLS part of connections to servers whose names are learnt as the client runs. A certificate is compared with the name that was connected to.
///
/// Bounds: `maximum` names. When they are more, all are forgotten, and their files are read again.
final class TLSByHost: Sendable {
    static let maximum = 64
    private let settings: TLSClientConfiguration
    private let known = Mutex<[String: TLSClientContexts]>([:])

    init(_ settings: TLSClientConfiguration) { self.settings = settings }

    func contexts(of host: String) -> TLSClientContexts {
        self.known.withLock { known in
            if let contexts = known[host] { return contexts }
            if known.count >= Self.maximum { known = [:] }
            let contexts = TLSClientContexts(settings, name: host)
            known[host] = contexts
            return contexts
        }
    }
}
