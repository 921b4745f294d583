import APIErrors
import HotPath
public import Hummingbird
import Logging
public import NIOCore

/// What travels with a request through both servers: ids for the log, the peer, and who the admin is.
public struct ServerRequestContext: RequestContext {
    /// What Hummingbird keeps.
    public var coreContext: CoreRequestContextStorage
    /// The connection's channel.
    public let channel: any Channel
    /// The caller's `X-Request-Id`, or one made here. Is in every line of ``logger`` and in the answer.
    public internal(set) var requestID: String
    /// The caller's `traceparent` if it is well-formed; to be passed on to other servers as it is.
    public internal(set) var traceparent: String?
    /// The name of the token that the admin port or a guarded route was entered with, `local` without one; nil on a route that is open to everybody.
    public internal(set) var actor: String?
    /// What is wrong with the request's target, if it is refused for that.
    var targetFault: APIError?

    /// Made by Hummingbird for every request.
    public init(source: Source) {
        coreContext = .init(source: source)
        channel = source.channel
        requestID = ""
        traceparent = nil
        actor = nil
        targetFault = nil
    }
}

extension ServerRequestContext {
    /// Takes over the request's ids. A `X-Request-Id` that is not 1 to 128 of `A-Z a-z 0-9 . _ : -` is replaced, not passed on.
    mutating func identify(_ request: Request) {
        if let given = request.headers[.requestID], ServerRequestContext.isRequestID(given) {
            requestID = given
            logger[metadataKey: "hb.request.id"] = .string(given)
        } else {
            // The context's own `id` is not asked: it traps with a log handler that drops metadata.
            requestID = logger[metadataKey: "hb.request.id"]?.description ?? RequestID().description
        }
        if let trace = request.headers[.traceparent], isTraceparent(trace) {
            traceparent = trace
            logger[metadataKey: "traceparent"] = .string(trace)
        }
    }

    /// Whether a text may be passed on as an `X-Request-Id`: 1 to 128 of `A-Z a-z 0-9 . _ : -`.
    public static func isRequestID(_ text: String) -> Bool { HotRequestID.isRequestID(text.utf8) }
}

/// W3C Trace Context, version 00: `00-` 32 hex digits `-` 16 hex digits `-` 2 hex digits, ids not all zero.
public func isTraceparent(_ text: String) -> Bool {
    let parts = text.utf8.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
    guard parts.count == 4, parts[0].elementsEqual("00".utf8), parts[1].count == 32, parts[2].count == 16, parts[3].count == 2 else {
        return false
    }
    let isLowerHex = parts.dropFirst().allSatisfy { part in
        part.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }
    return isLowerHex && !parts[1].allSatisfy { $0 == 0x30 } && !parts[2].allSatisfy { $0 == 0x30 }
}
