import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import NIOHTTPTypes

/// Hummingbird's HTTP/1.1 channel, with the tasks of each connection on the connection's own event loop.
///
/// A handler must not block. In exchange there is no thread hop between the socket and the handler, which measured 12 to
/// 17 % less CPU a request.
struct LoopBoundHTTP1Channel: ServerChildChannel {
    private let base: HTTP1Channel
    private let hotPath: (@Sendable (any Channel) throws -> Void)?

    init(base: HTTP1Channel, hotPath: (@Sendable (any Channel) throws -> Void)?) {
        self.base = base
        self.hotPath = hotPath
    }

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<HTTP1Channel.Value> {
        let ready = self.base.setup(channel: channel, logger: logger)
        guard let hotPath else { return ready }
        return ready.flatMapThrowing { value in
            try hotPath(channel)
            return value
        }
    }

    func handle(value: HTTP1Channel.Value, logger: Logger) async {
        // One executor a connection: it holds a reference and nothing else.
        await withTaskExecutorPreference(EventLoopTaskExecutor(value.channel.eventLoop)) {
            await self.base.handle(value: value, logger: logger)
        }
    }
}

extension HTTPServerBuilder {
    /// HTTP/1.1 with the tasks of each connection on its own event loop, and bodies bounded before they reach the router.
    /// - Parameters:
    ///   - idleTimeout: how long a connection without a request is kept
    ///   - maximumBodyBytes: more than this is answered 413, and the connection closed
    ///   - handlersInFront: more handlers of HTTP parts, made for each connection, nearer to the socket than the router
    ///   - hotPath: adds to a connection's pipeline once it is set up, on its event loop
    public static func loopBoundHTTP1(
        idleTimeout: Duration = .seconds(75),
        maximumBodyBytes: Int = Values.maximumBodyBytes,
        handlersInFront: @escaping @Sendable () -> [any RemovableChannelHandler] = { [] },
        hotPath: (@Sendable (any Channel) throws -> Void)? = nil
    ) -> HTTPServerBuilder {
        HTTPServerBuilder { responder in
            LoopBoundHTTP1Channel(
                base: HTTP1Channel(
                    responder: responder,
                    configuration: .init(
                        additionalChannelHandlers: handlersInFront() + [RequestBodyBound(maximumBytes: maximumBodyBytes)],
                        idleTimeout: TimeAmount(idleTimeout),
                        // What nginx takes by default, some times over; 80 KiB each would let a caller hold much memory.
                        httpDecoderConfiguration: .init(
                            maxHeaderFieldSize: 16 * 1024,
                            maxHeaderListSize: 32 * 1024,
                            maxHeaderFieldCount: 100
                        )
                    )
                ),
                hotPath: hotPath
            )
        }
    }

    /// The same, with one route answered in front of the router.
    public static func loopBoundHTTP1(idleTimeout: Duration = .seconds(75), hotPath endpoint: some HotPathEndpoint) -> HTTPServerBuilder {
        self.loopBoundHTTP1(
            idleTimeout: idleTimeout,
            hotPath: { channel in
                let pipeline = channel.pipeline.syncOperations
                let connection = HotPathConnection()
                let hotPath = HotPathHandler(endpoint: endpoint, connection: connection, idleTimeout: TimeAmount(idleTimeout))
                try pipeline.addHandler(hotPath, position: .first)
                // Behind everything that writes answers of its own.
                let state = try pipeline.handler(type: HTTPConnectionStateHandler.self)
                try pipeline.addHandler(HotPathObserver(connection: connection), position: .after(state))
            }
        )
    }
}
