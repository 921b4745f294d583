import NIOCore
import NIOTransportSecurity

/// One question to a sentinel or a server over a connection of its own, which is closed after the answer.
///
/// Bounds: connecting, TLS, credentials and the answer together take at most the time that is given.
enum RedisQuestion {
    /// To be called on the event loop.
    /// - Parameters:
    ///   - credentials: the `AUTH` that goes first; nil for none
    ///   - body: asks, and gets the time when the answer must be there
    /// - Returns: the answer; and what succeeds once nothing is open any more
    static func ask<Value: Sendable>(
        _ endpoint: RedisEndpoint,
        on eventLoop: any EventLoop,
        _ configuration: RedisConfiguration,
        _ tls: TLSByHost?,
        credentials: RedisCommand?,
        within limit: TimeAmount,
        _ body: @escaping @Sendable (RedisConnection, NIODeadline) -> EventLoopFuture<Value>
    ) -> (answer: EventLoopFuture<Value>, ended: EventLoopFuture<Void>) {
        let deadline = eventLoop.now + limit
        let answer = eventLoop.makePromise(of: Value.self)
        let ended = eventLoop.makePromise(of: Void.self)
        let timer = eventLoop.scheduleTask(deadline: deadline) { answer.fail(RedisError(.timedOut(sent: true))) }
        answer.futureResult.whenComplete { _ in timer.cancel() }
        let counters = LoopCounters()
        RedisDial.open(
            .tcp(host: endpoint.host, port: endpoint.port),
            on: eventLoop,
            tls: tls,
            timeout: limit,
            maximumOutgoingBytes: configuration.maximumOutgoingBytes
        ) { channel in
            let handler = RedisChannelHandler(eventLoop: eventLoop, configuration: configuration, counters: counters)
            try channel.pipeline.syncOperations.addHandler(handler)
        }.whenComplete { result in
            do {
                let channel = try result.get()
                channel.closeFuture.whenComplete { _ in ended.succeed() }
                let handler = try channel.pipeline.syncOperations.handler(type: RedisChannelHandler.self)
                handler.connected()
                let connection = RedisConnection(channel: channel, handler: handler, configuration: configuration)
                guard eventLoop.now < deadline else { return connection.close() }
                // Both leave together. Where the credentials are refused, that is the error.
                let granted = credentials.map { connection.send($0, deadline: deadline) }
                let answered = body(connection, deadline)
                (granted?.flatMap { _ in answered } ?? answered).whenComplete { result in
                    answer.completeWith(result)
                    connection.close()
                }
            } catch {
                answer.fail(error)
                ended.succeed()
            }
        }
        return (answer.futureResult, ended.futureResult)
    }
}
