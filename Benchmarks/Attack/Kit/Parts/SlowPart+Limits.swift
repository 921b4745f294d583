import Foundation

extension SlowPart {
    /// Bounds of connections.
    func limits(_ server: ServerProcess) -> Recorder {
        var recorder = Recorder(server)
        _ = try? Caller(port: server.port).send(hot(server).adding("Connection: close"))
        perAddress(server, &recorder)
        inAll(server, &recorder)
        return recorder
    }

    /// How many of these silent connections are open; what those say that are not.
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

    private func perAddress(_ server: ServerProcess, _ recorder: inout Recorder) {
        let name = "\(Self.maximumPerAddress + 15) silent connections from one address"
        recorder.attempt(name) { recorder in
            var connections: [Connection] = []
            for _ in 0..<Self.maximumPerAddress + 15 { connections.append(try Connection(port: server.port, from: "127.0.0.66")) }
            usleep(300_000)
            let open = stillOpen(connections, name, &recorder)
            if open > Self.maximumPerAddress {
                recorder.fail(name, .bound, "\(open) are open; MAX_CONNECTIONS_PER_ADDRESS is \(Self.maximumPerAddress)")
            }
            if open == 0 { recorder.fail(name, .bystander, "all were closed") }
            let stranger = try Caller(port: server.port, source: "127.0.0.67").send(
                hot(server).adding("Connection: close"),
                within: .seconds(3)
            )
            if !stranger.isSuccess { recorder.fail(name, .bystander, "another address gets \(stranger.status)") }
            connections.removeAll()
            // Their places are free again.
            try retry(within: .seconds(3)) {
                let again = try Caller(port: server.port, source: "127.0.0.66").send(
                    hot(server).adding("Connection: close"),
                    within: .seconds(3)
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
            // Health is asked for where it is answered: on the public port or, if that is full, on the admin port.
            let health = [server.port, server.adminPort].map { port in
                Result { try Caller(port: port, source: "127.0.0.99").call("GET", "/livez", within: .seconds(2)).status }
            }
            if !health.contains(where: { (try? $0.get()) == 200 }) {
                let text = health.map { result in
                    switch result {
                    case .success(let status): "\(status)"
                    case .failure(let error): "\(error)"
                    }
                }
                recorder.fail(name, .bystander, "/livez on the public port: \(text[0]); on the admin port: \(text[1])")
            }
            let open = server.descriptors
            recorder.notes.append(
                "\(server.name): \(name): \(open) descriptors, /livez \((try? health[0].get()).map { "\($0)" } ?? "silent") public"
            )
            connections.removeAll()
            try retry(within: .seconds(5)) {
                let again = try Caller(port: server.port).send(hot(server).adding("Connection: close"), within: .seconds(3))
                if !again.isSuccess { throw Caller.Failure(description: "\(again.status) once all are closed") }
            }
        }
    }

    /// Silent connections on the product server's admin port do not end orders.
    func silentAdmins(product: ServerProcess, order: ServerProcess) -> Recorder {
        var recorder = Recorder(product)
        let name = "320 silent connections on the admin port"
        recorder.attempt(name, .bystander) { recorder in
            var connections: [Connection] = []
            for index in 0..<320 { connections.append(try Connection(port: product.adminPort, from: "127.0.1.\(1 + index / 2)")) }
            usleep(300_000)
            for round in 0..<5 {
                let answer = try Caller(port: order.port).send(hot(order).adding("Connection: close"), within: .seconds(6))
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
            connections.removeAll()
        }
        return recorder
    }
}
