// What each new connection to Redis learns before it is used: the scripts' names, the dataset, and whether Redis knows and permits every command of the
// scripts.

import NIOCore
import RedisClient
import Synchronization

final class GateConnections: Sendable {
    private let events: EventLog
    private let tag: @Sendable () -> String
    private let connected: @Sendable (_ dataset: String) -> Void
    private let refusals = Mutex<String?>(nil)

    /// - Parameters:
    ///   - tag: a hash tag that no product has, of a slot that the server serves.
    ///   - connected: called with each connection's dataset before the connection is used.
    init(events: EventLog, tag: @escaping @Sendable () -> String, connected: @escaping @Sendable (_ dataset: String) -> Void) {
        self.events = events
        self.tag = tag
        self.connected = connected
    }

    /// Prepares a connection. Its result becomes the connection's attachment: a `GateConnectionInfo`.
    func learn(_ connection: RedisConnection) -> EventLoopFuture<any Sendable> {
        let deadline = NIODeadline.now() + .seconds(1)
        @Sendable func named(_ command: String, _ reply: EventLoopFuture<RedisValue>) -> EventLoopFuture<RedisValue> {
            reply.flatMapErrorThrowing { throw GateRefusal(command, $0) ?? $0 }
        }
        let loads = GateScript.allCases.map { named("SCRIPT LOAD", connection.send(.scriptLoad($0.source), deadline: deadline)) }
        let infos = ["server", "replication"].map { named("INFO", connection.send(.info($0), deadline: deadline)) }
        let learnt = EventLoopFuture.whenAllSucceed(loads + infos, on: connection.eventLoop).flatMap { replies in
            let scripts = replies.prefix(loads.count).map { $0.string ?? "" }
            let info = replies.dropFirst(loads.count).map { $0.string ?? "" }.joined(separator: "\n")
            let check = RedisCommand.evalSHA(scripts[GateScript.check.rawValue], keys: GateRefusal.keys(self.tag()))
            // If the slot has just moved to another node, its refusal says nothing about what this node permits.
            let checked = connection.send(check, deadline: deadline).flatMapErrorThrowing { error in
                guard (error as? RedisError)?.serverError?.isOfSlot == true else { throw error }
                return .null
            }
            return named("EVALSHA", checked).flatMapThrowing { reply -> any Sendable in
                let learnt = try GateConnectionInfo(scripts: scripts, info: info)
                if let refusal = GateRefusal(reply, info: info) { throw refusal }
                self.accepted(learnt.dataset)
                return learnt
            }
        }
        return learnt.flatMapErrorThrowing { error in
            if let refusal = error as? GateRefusal { self.refused(refusal) }
            throw error
        }
    }

    /// TLS is in the way of every connection. Told once until the words change.
    func refused(_ failure: String) {
        if isNews(failure) { events.tell(.redisTLSFailed(why: failure)) }
    }

    private func accepted(_ dataset: String) {
        refusals.withLock { $0 = nil }
        events.tell(.redisConnected(dataset: dataset))
        connected(dataset)
    }

    /// Reports a refusal once: every further connection would be refused in the same way.
    private func refused(_ refusal: GateRefusal) {
        let text = refusal.description
        if isNews(text) { events.tell(.redisRefuses(why: text)) }
    }

    private func isNews(_ text: String) -> Bool {
        refusals.withLock { told in
            defer { told = text }
            return told != text
        }
    }
}
