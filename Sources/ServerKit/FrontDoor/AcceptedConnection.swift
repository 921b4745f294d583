import HTTPTypes
import HummingbirdCore
import NIOCore
import NIOHTTPTypes
import Synchronization

/// A connection between its being accepted and its being handled.
///
/// SwiftNIO ends the process where a `NIOAsyncChannel` is released before it was finished. A stopping server would do that to a connection that is accepted
/// in the very moment of the stop: the server's stream of connections has ended, and drops it. This object closes such a connection instead.
final class AcceptedConnection: ServerChildChannelValue {
    private let connection: NIOAsyncChannel<HTTPRequestPart, HTTPResponsePart>
    private let isTaken = Atomic(false)

    init(_ connection: NIOAsyncChannel<HTTPRequestPart, HTTPResponsePart>) {
        self.connection = connection
    }

    deinit {
        if isTaken.load(ordering: .acquiring) { return }
        // Finishes the channel, which must outlive this object for that.
        Task { [connection] in try? await connection.executeThenClose { _, _ in } }
    }

    var channel: any Channel { connection.channel }

    /// The channel, for a caller that finishes it.
    func take() -> NIOAsyncChannel<HTTPRequestPart, HTTPResponsePart> {
        isTaken.store(true, ordering: .releasing)
        return connection
    }
}
