import Foundation
import Synchronization

extension SlowPart {
    /// Clients that ask and never read.
    func unread(_ server: ServerProcess, _ recorder: inout Recorder) {
        // The first round is not measured: the memory that a server takes for its first thousands of requests belongs to no single connection.
        for (name, draft, isMeasured) in [
            ("hot requests, answers never read", cheap(server), false), ("hot requests, answers never read", cheap(server), true),
            ("other requests, answers never read", documentRequest(server), true),
        ] {
            recorder.attempt(name) { recorder in
                let count = 4
                let before = server.memory
                let packet = [UInt8](latin1: String(repeating: draft.text, count: max(1, 32_768 / draft.text.byteCount)))
                var connections = try (0..<count).map { _ in try Connection(port: server.port, receiveBuffer: 4_096) }
                var peak = before
                var sent = 0
                var refusedAt: ContinuousClock.Instant?
                let began = ContinuousClock.now
                // Until the server has held all connections back for a second, or they have sent all they may.
                while ContinuousClock.now - began < .seconds(20), sent < size.unreadBytes * count {
                    var progress = 0
                    for connection in connections { progress += connection.send(packet[...], until: .now + .milliseconds(20)) }
                    sent += progress
                    peak = max(peak, server.memory)
                    if progress > 0 {
                        refusedAt = nil
                    } else if let since = refusedAt, ContinuousClock.now - since > .seconds(1) {
                        break
                    } else {
                        refusedAt = refusedAt ?? .now
                    }
                }
                let grown = peak - before
                let round = isMeasured ? "" : ", first round"
                recorder.notes.append(
                    "\(server.name): \(name)\(round): \(sent / 1024) KiB sent on \(count) connections, memory grew \(grown / 1024) KiB"
                )
                // The allocator may keep some memory for itself: 4 MiB beyond the bound, for all connections together.
                if isMeasured, grown > count * 2 * 1024 * 1024 + 4 * 1024 * 1024 {
                    recorder.fail(name, .bound, "memory grew by \(grown / 1024 / 1024) MiB for \(count) connections, at most 2 MiB each")
                }
                // A server that still reads or answers has taken no answer for stuck yet, so the time counts from its last progress.
                let bound = Self.answerTimeout + .seconds(3) + size.slack
                let ports = Set(connections.compactMap(\.localPort))
                let closes = server.closes(connectionsFrom: ports, within: bound) { connections.map(\.unacknowledged) }
                if ports.count < count || !closes {
                    recorder.fail(
                        name,
                        .bound,
                        "\(server.connections(from: ports)) of \(count) connections still open \(bound) after the last progress; ANSWER_TIMEOUT is 2s"
                    )
                }
                for connection in connections { connection.reset() }
                connections.removeAll()
                let health = try Caller(port: server.port).call("GET", "/livez")
                if health.status != 200 { recorder.fail(name, .bystander, "/livez is \(health.status)") }
            }
        }
    }

    /// Many connections that ask for nothing.
    func many(_ server: ServerProcess, _ recorder: inout Recorder) {
        let name = "\(size.idle) idle connections"
        recorder.attempt(name) { recorder in
            let (before, descriptors) = (server.memory, server.descriptors)
            var connections: [Connection] = []
            let began = ContinuousClock.now
            for index in 0..<size.idle {
                connections.append(try Connection(port: server.port, from: "127.0.\(1 + index / 200).\(1 + index % 200)"))
            }
            let health = try Caller(port: server.port).call("GET", "/livez", within: .seconds(2) + size.slack)
            let order = try bystander(server, within: .seconds(5) + size.slack)
            if !health.isSuccess || !order.isSuccess {
                recorder.fail(name, .bystander, "/livez \(health.status), a hot request \(order.status)")
            }
            let grown = server.memory - before
            recorder.notes.append("\(server.name): \(name): \(grown / max(1, size.idle)) bytes each")
            if grown > size.idle * 64 * 1024 { recorder.fail(name, .bound, "\(grown / size.idle) bytes each") }
            // The connections are silent from the beginning, so either the time for a head or that of an idle connection ends them.
            let bound = max(Self.idleTimeout, Self.requestTimeout) + .seconds(4) + size.slack
            if size.waitsForIdle, !server.hasDescriptors(atMost: descriptors + 4, within: bound) {
                recorder.fail(
                    name,
                    .bound,
                    "\(server.descriptors - descriptors) still open \(ContinuousClock.now - began) after the first was opened"
                )
            }
            connections.removeAll()
            if !server.hasDescriptors(atMost: descriptors + 4, within: .seconds(5) + size.slack) {
                recorder.fail(name, .bound, "\(server.descriptors - descriptors) descriptors more than before")
            }
        }
    }

    /// Connections that are cut while a request is worked on.
    func resets(_ server: ServerProcess, _ recorder: inout Recorder) {
        let name = "\(size.resets) resets during requests"
        recorder.attempt(name) { recorder in
            cut(server, size.resets / 4)
            _ = server.hasDescriptors(atMost: 0, within: .milliseconds(500))
            // The allocator keeps some memory for itself, however few connections there are.
            let bound = max(4 * 1024 * 1024, size.resets * 128)
            // On a busy machine many connections are open at once, and the server keeps the memory for so many. A leak would show in each wave, so one wave
            // within the bound is enough.
            for wave in 1...3 {
                let grown = try cutAndCheck(server, name, &recorder)
                recorder.notes.append("\(server.name): \(name): cut, memory grew by \(grown / 1024) KiB")
                if grown <= bound { break }
                if wave == 3 { recorder.fail(name, .bound, "memory grew by \(grown / 1024) KiB, for the third time") }
            }
        }
    }

    /// Returns by how many bytes the server's memory grew.
    private func cutAndCheck(_ server: ServerProcess, _ name: String, _ recorder: inout Recorder) throws -> Int {
        let (before, descriptors) = (server.memory, server.descriptors)
        let count = cut(server, size.resets)
        if count * 100 < size.resets * 99 {
            recorder.fail(name, .bound, "only \(count) of \(size.resets) connections were made and cut")
        }
        // This request waits behind all the cut connections, which are accepted first and found dead.
        let health = try Caller(port: server.port).call("GET", "/livez", within: .seconds(60))
        if !health.isSuccess { recorder.fail(name, .bystander, "/livez is \(health.status)") }
        if !server.hasDescriptors(atMost: descriptors + 4, within: .seconds(10) + size.slack) {
            recorder.fail(name, .bound, "\(server.descriptors - descriptors) descriptors more than before")
        }
        return server.memory - before
    }

    /// Returns how many connections were made and cut.
    @discardableResult
    private func cut(_ server: ServerProcess, _ count: Int) -> Int {
        let left = Mutex(count)
        let done = Mutex(0)
        _ = Self.atOnce(4) { _ in
            while true {
                let index = left.withLock { left in
                    left -= 1
                    return left
                }
                guard index >= 0 else { return }
                guard let connection = try? Connection(port: server.port) else { continue }
                switch index % 6 {
                case 0: connection.send(hot(server).text + other(server).text)
                case 1: connection.send(String(hot(server).text.unicodeScalars.prefix(90)))
                case 2: connection.send(other(server).text + hot(server).text)
                default: connection.send(hot(server).text)
                }
                // Every third connection is cut half a millisecond later, when the server may have begun to work on its request.
                if index % 3 == 0 { usleep(500) }
                connection.reset()
                done.withLock { $0 += 1 }
            }
        }
        return done.withLock { $0 }
    }
}
