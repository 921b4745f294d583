import NIOCore
import NIOSSL
import NIOTLS

/// Stands behind the TLS handler: says when the handshake is over, and puts TLS' errors into words.
///
/// Invariant: the promise is completed once, at the latest when the channel has ended. An error during the handshake goes to the promise alone; later ones go on.
/// With TLS 1.3 a server may refuse a client's certificate after the client's handshake: so errors are put into words for as long as the connection lasts.
final class TLSHandshakeWatch: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    let handshake: EventLoopPromise<Void>
    private let name: String
    /// Whether the certificate has to name `name`, a host.
    private let checksHost: Bool
    private var isOver = false

    init(name: String, checksHost: Bool, handshake: EventLoopPromise<Void>) {
        self.name = name
        self.checksHost = checksHost
        self.handshake = handshake
    }

    func fail(_ failure: TLSFailure) {
        guard !isOver else { return }
        isOver = true
        handshake.fail(failure)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent, !isOver {
            let handler = try? context.pipeline.syncOperations.handler(type: NIOSSLClientHandler.self)
            guard !checksHost || handler?.peerCertificate?.isFor(host: name) == true else {
                fail(.isFor(another: name))
                return context.close(promise: nil)
            }
            isOver = true
            handshake.succeed()
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        let handler = try? context.pipeline.syncOperations.handler(type: NIOSSLClientHandler.self)
        let failure = TLSFailure(error, certificate: handler?.peerCertificate, name: self.name)
        guard isOver else {
            fail(failure ?? TLSFailure(.other, "TLS: the connection ended during the handshake (\(error))"))
            return context.close(promise: nil)
        }
        context.fireErrorCaught(failure ?? error)
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(.cutOff)
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        fail(TLSFailure(.other, "TLS: the connection ended during the handshake"))
    }
}
