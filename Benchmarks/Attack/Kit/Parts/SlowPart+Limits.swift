import Foundation
import Synchronization

extension SlowPart {
    /// Bounds of connections.
    func limits(_ server: ServerProcess) -> Recorder {
        var recorder = Recorder(server)
        _ = try? Caller(port: server.port).send(hot(server).adding("Connection: close"))
        perAddress(server, &recorder)
        inAll(server, &recorder)
        return recorder
    }

    /// How many of these silent connections are open. What the others were told before their end is judged.
    private func stillOpen(_ connections: [Connection], _ subject: String, _ recorder: inout Recorder) -> Int {
        var open = 0
        for connection in connections {
            var reader = AnswerReader()
            var hasEnded = false
            var deadline = ContinuousClock.now + .milliseconds(20)
            reading: while true {
                switch connection.receive(until: deadline) {
                case .bytes(let bytes):
                    reader.append(bytes)
                    deadline = .now + .milliseconds(500)
                case .end, .reset:
                    hasEnded = true
                    break reading
                case .nothing: break reading
                }
            }
            do {
                while let answer = try reader.next() {
                    // A refused connection may be told why: 503 with Retry-After, in the one shape.
                    for (rule, text) in Judge.faults(of: [answer]) where rule != .serverError || answer.status != 503 {
                        recorder.fail(subject, rule, text)
                    }
                }
            } catch {
                recorder.fail(subject, .malformedAnswer, "\(error)")
            }
            if hasEnded { recorder.closed += 1 } else { open += 1 }
        }
        return open
    }

    /// A hot request by somebody who does nothing wrong. A busy machine may answer some with its own time-outs; so while its slack lasts, the request is sent again.
    func bystander(_ server: ServerProcess, from source: String? = nil, within bound: Duration) throws -> Answer {
        let end = ContinuousClock.now + size.slack
        while true {
            let answer = try Caller(port: server.port, source: source).send(hot(server).adding("Connection: close"), within: bound)
            if answer.isSuccess || ContinuousClock.now >= end { return answer }
            usleep(100_000)
        }
    }

    private func perAddress(_ server: ServerProcess, _ recorder: inout Recorder) {
        let name = "\(Self.maximumPerAddress + 15) silent connections from one address"
        recorder.attempt(name) { recorder in
            var connections: [Connection] = []
            for _ in 0..<Self.maximumPerAddress + 15 { connections.append(try Connection(port: server.port, from: "127.0.0.66")) }
            // A connection beyond the bound is still answered `/livez`, and closed when it asks for nothing.
            let health = try Caller(port: server.port, source: "127.0.0.66").call("GET", "/livez", within: .seconds(3) + size.slack)
            if health.status != 200 { recorder.fail(name, .bystander, "/livez is \(health.status) for the full address") }
            usleep(1_000_000)
            let open = stillOpen(connections, name, &recorder)
            if open > Self.maximumPerAddress {
                recorder.fail(name, .bound, "\(open) are open; MAX_CONNECTIONS_PER_ADDRESS is \(Self.maximumPerAddress)")
            }
            if open == 0 { recorder.fail(name, .bystander, "all were closed") }
            let stranger = try bystander(server, from: "127.0.0.67", within: answerTime)
            if !stranger.isSuccess { recorder.fail(name, .bystander, "another address gets \(stranger.status)") }
            connections.removeAll()
            // The places of the closed connections are free again.
            try retry(within: .seconds(3) + size.slack) {
                let again = try Caller(port: server.port, source: "127.0.0.66").send(
                    hot(server).adding("Connection: close"),
                    within: answerTime
                )
                if !again.isSuccess {
                    throw Caller.Failure(description: "the address gets \(again.status) once its connections are closed")
                }
            }
        }
    }

    private func inAll(_ server: ServerProcess, _ recorder: inout Recorder) {
        let name = "\(Self.maximumConnections + 40) silent connections from many addresses"
        recorder.attempt(name) { recorder in
            var connections: [Connection] = []
            for index in 0..<Self.maximumConnections + 40 {
                connections.append(try Connection(port: server.port, from: "127.0.0.\(100 + index / 10)"))
            }
            usleep(300_000)
            // `/livez` is answered to an address without any of these connections, and to one that has some.
            for source in ["127.0.0.99", "127.0.0.100"] {
                let status = try Caller(port: server.port, source: source).call("GET", "/livez", within: .seconds(2) + size.slack).status
                if status != 200 { recorder.fail(name, .bystander, "/livez is \(status) for \(source)") }
            }
            recorder.notes.append("\(server.name): \(name): \(server.descriptors) descriptors")
            connections.removeAll()
            try retry(within: .seconds(5) + size.slack) {
                let again = try Caller(port: server.port).send(hot(server).adding("Connection: close"), within: answerTime)
                if !again.isSuccess { throw Caller.Failure(description: "\(again.status) once all are closed") }
            }
        }
    }

    /// Silent connections on the product server's admin port do not end orders: of many addresses, and of one that comes again and again.
    func silentAdmins(product: ServerProcess, order: ServerProcess) -> Recorder {
        var recorder = Recorder(product)
        for isRepeated in [false, true] {
            let name = "320 silent connections on the admin port" + (isRepeated ? ", from one address, every 400 ms" : "")
            recorder.attempt(name, .bystander) { recorder in
                let strangers = Strangers(port: product.adminPort, isRepeated: isRepeated)
                defer { strangers.end() }
                guard strangers.come() else { throw Caller.Failure(description: strangers.failure ?? "") }
                usleep(300_000)
                for round in 0..<5 {
                    let answer = try bystander(order, within: answerTime)
                    if !answer.isSuccess {
                        recorder.fail(
                            name,
                            .bystander,
                            "order \(round + 1) is answered \(answer.status) \(answer.body.latin1.shown(limit: 80))"
                        )
                        break
                    }
                    usleep(300_000)
                }
                if let failure = strangers.failure { recorder.fail(name, .bound, failure) }
            }
        }
        return recorder
    }
}

/// Connections that are opened and say nothing, on a thread that owns them. The connections of one round are kept until those of the next are made, so that
/// no place is free in between.
private final class Strangers: Sendable {
    private struct State {
        var failure: String?
        var hasCome = false
        var isOver = false
    }

    private let state = Mutex(State())
    private let group = DispatchGroup()

    init(port: Int, isRepeated: Bool) {
        group.enter()
        Thread.detachNewThread {
            defer { self.group.leave() }
            var rounds: [[Connection]] = []
            while !self.state.withLock({ $0.isOver }) {
                if isRepeated || rounds.isEmpty {
                    do {
                        let round = try (0..<320).map {
                            try Connection(port: port, from: isRepeated ? "127.0.1.1" : "127.0.1.\(1 + $0 / 2)")
                        }
                        // The first round is kept to the end, because it holds the ordinary places.
                        if rounds.count > 1 { rounds.removeLast() }
                        rounds.append(round)
                    } catch {
                        return self.state.withLock { $0.failure = "\(error)" }
                    }
                    self.state.withLock { $0.hasCome = true }
                }
                usleep(400_000)
            }
        }
    }

    /// Why no more connections were made; nil if none has failed.
    var failure: String? { state.withLock { $0.failure } }

    /// Waits for the first round. False: its connections could not be made.
    func come() -> Bool {
        while true {
            let (hasCome, failure) = state.withLock { ($0.hasCome, $0.failure) }
            if hasCome || failure != nil { return hasCome }
            usleep(10_000)
        }
    }

    func end() {
        state.withLock { $0.isOver = true }
        group.wait()
    }
}
