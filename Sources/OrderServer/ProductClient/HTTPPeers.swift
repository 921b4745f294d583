import NIOCore
import Synchronization

/// The instances of one server, used in turn. An instance that refused a connection a moment ago is skipped while there is another.
final class HTTPPeers: Sendable {
    private let peers: [HTTPPeer]
    private let turn = Atomic<Int>(0)

    /// `endpoints` must have at least one element.
    init(
        _ endpoints: [HTTPEndpoint],
        loop: any EventLoop,
        connectionAge: Duration = HTTPPeer.connectionAge,
        onTrouble: @escaping HTTPPeer.TroubleHook = { _, _ in }
    ) {
        precondition(!endpoints.isEmpty, "a server without instances")
        peers = endpoints.map { HTTPPeer($0, loop: loop, connectionAge: connectionAge, onTrouble: onTrouble) }
    }

    /// The instance whose turn it is.
    func next() -> HTTPPeer {
        let turn = self.turn.wrappingAdd(1, ordering: .relaxed).newValue
        let first = Int(UInt(bitPattern: turn) % UInt(self.peers.count))
        for offset in 0..<self.peers.count {
            let peer = self.peers[(first + offset) % self.peers.count]
            if !peer.isDown { return peer }
        }
        return self.peers[first]
    }

    func shutdown() {
        for peer in peers { peer.shutdown() }
    }
}
