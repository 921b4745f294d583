// Invariant: each event carries the whole order, with its version as `id`. Versions grow within a stream. A version that the client names in `Last-Event-ID` is
//   not sent again. If states follow each other faster than they are looked up, only the last one is sent.
//
// Bounds: one of the places of `OrderWatch`; `maximumLife`; a silent stream writes a comment each `heartbeat`, which finds a client that has gone. Stops: with
//   the first state that is not PENDING, at the end of its life, when the client goes, or when the server stops.

import APIErrors
import HTTPTypes
import Hummingbird
import NIOCore
import ServerKit
import StrictJSON

/// The changes of one order as server-sent events (WHATWG HTML, section 9.2).
struct OrderEventStream: Sendable {
    struct Configuration: Sendable {
        var heartbeat: Duration = .seconds(15)
        var maximumLife: Duration = .seconds(300)
    }

    let settings: Configuration
    let changes: OrderWatch
    /// The order when the client came.
    let first: VersionedOrder
    /// The version that the client knows; 0 if it knows none.
    let seen: Int64

    /// The answer: the stream; or 204, after which clients do not reconnect, if the client knows the settled state already.
    /// - Throws: `OVERLOADED` if too many wait already
    func response(on channel: any Channel) throws(APIError) -> Response {
        if first.isSettled, first.version <= seen {
            return Response(status: .noContent, headers: [.cacheControl: "no-store"])
        }
        // The body holds the place, so that the place is given back even if the body is never written.
        let place = try changes.place()
        let body = ResponseBody { writer in
            try await run(place, on: channel) { try await writer.write($0) }
            try await writer.finish(nil)
        }
        return Response(
            status: .ok,
            // Without the last header, nginx holds events back until its buffer is full.
            headers: [.contentType: "text/event-stream", .cacheControl: "no-store", .accelBuffering: "no"],
            body: body
        )
    }

    /// Writes events until the stream ends.
    func run(_ place: OrderWatch.Place, on channel: any Channel, _ write: (ByteBuffer) async throws -> Void) async throws {
        let deadline = ContinuousClock.now + settings.maximumLife
        let id = first.order.id
        var current = first
        // The response head is sent with the first bytes. Without them a client would take a silent stream for a dead server.
        try await write(current.version > self.seen ? OrderEventStream.event(current) : OrderEventStream.comment)
        while !current.isSettled, ContinuousClock.now < deadline {
            let seen = max(current.version, self.seen)
            let bound = min(settings.heartbeat, deadline - .now)
            let outcome = await changes.endingWithServer {
                await DisconnectHandler.watch(channel) { await place.next(order: id, after: seen, within: bound) }
            }
            switch outcome {
            case .changed(let next):
                current = next
                try await write(OrderEventStream.event(next))
            case .timedOut: try await write(OrderEventStream.comment)
            case .stopped, .cancelled: return
            }
        }
    }

    private static let comment = ByteBuffer(string: ":\n\n")

    static func event(_ order: VersionedOrder) -> ByteBuffer {
        var json = JSONWriter()
        order.order.write(to: &json)
        return ByteBuffer(string: "id: \(order.version)\nevent: order\ndata: \(json.string)\n\n")
    }
}

extension HTTPField.Name {
    /// `X-Accel-Buffering` (nginx, ngx_http_proxy_module)
    fileprivate static let accelBuffering = HTTPField.Name("X-Accel-Buffering") ?? .cacheControl
}
