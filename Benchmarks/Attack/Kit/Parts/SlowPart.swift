// Clients that are slow, silent, many, or gone: what one of them can cost a server, and what it can cost the others.
//
// The servers here are our own, with times of seconds where a shop has half minutes. Bounds: so many connections and bytes as the settings say, and every wait
// has a deadline.

import Foundation
import Synchronization

/// Slow and many.
struct SlowPart {
    /// How much is done.
    struct Size: Sendable {
        /// Connections that are cut during a request.
        var resets: Int
        /// Idle connections at the same time.
        var idle: Int
        /// Bytes that a client that reads no answers sends at most, on each of its connections.
        var unreadBytes: Int
        /// Whether it is waited for until the servers have closed those.
        var waitsForIdle: Bool
        /// What a slow machine may add to a bound of time.
        var slack: Duration
    }

    let stand: Stand
    let requests: Requests
    let size: Size

    static let requestTimeout = Duration.seconds(2)
    static let answerTimeout = Duration.seconds(2)
    static let idleTimeout = Duration.seconds(6)
    static let maximumConnections = 64
    static let maximumPerAddress = 20

    private func environment(_ more: [String: String]) -> [String: String] {
        var environment = stand.environment.merging(["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"]) { $1 }
        for name in ["PRODUCT_PORT", "PRODUCT_ADMIN_PORT", "ORDER_PORT", "ORDER_ADMIN_PORT"] { environment[name] = "0" }
        environment["LOG_LEVEL"] = "warning"
        return environment.merging(more) { $1 }
    }

    /// A product server and an order server that uses it.
    private func servers(_ settings: [String: String]) throws -> (product: ServerProcess, order: ServerProcess) {
        let product = try ServerProcess("product-server", binaries: stand.binaries, environment: environment(settings))
        let order = try ServerProcess(
            "order-server",
            binaries: stand.binaries,
            environment: environment(
                settings.merging([
                    "PRODUCT_SERVER_URL": "http://127.0.0.1:\(product.port)",
                    "PRODUCT_INTERNAL_URL": "http://127.0.0.1:\(product.adminPort)",
                ]) { $1 }
            )
        )
        return (product, order)
    }

    func run() async throws -> PartReport {
        let began = ContinuousClock.now
        var report = PartReport(name: "slow and many")
        let slow = [
            "REQUEST_TIMEOUT": "2s", "ANSWER_TIMEOUT": "2s", "IDLE_TIMEOUT": "6s", "MAX_CONNECTIONS_PER_ADDRESS": "10000",
            "MAX_CONNECTIONS": "12000",
        ]
        let few = [
            "MAX_CONNECTIONS": "\(Self.maximumConnections)", "MAX_CONNECTIONS_PER_ADDRESS": "\(Self.maximumPerAddress)",
            "REQUEST_TIMEOUT": "30s",
        ]
        // Each server has a process of its own, so that they can be attacked at the same time.
        async let slowRecorders = slowServers(slow)
        async let fewRecorders = fewServers(few)
        for recorder in try await slowRecorders + fewRecorders { report.add(recorder) }
        report.took = .now - began
        return report
    }

    private func slowServers(_ settings: [String: String]) async throws -> [Recorder] {
        let (product, order) = try await Workers.run { try self.servers(settings) }
        defer {
            order.end()
            product.end()
        }
        var recorders = await Workers.map([product, order], workers: 2) { self.slow($0) }
        // The order server first: it uses the other.
        for server in [order, product] { recorders.append(try await Workers.run { self.stop(server) }) }
        return recorders
    }

    private func fewServers(_ settings: [String: String]) async throws -> [Recorder] {
        let (product, order) = try await Workers.run { try self.servers(settings) }
        defer {
            order.end()
            product.end()
        }
        // First, while the order server has no calls open to the other.
        let admins = try await Workers.run { self.silentAdmins(product: product, order: order) }
        return [admins] + (await Workers.map([product, order], workers: 2) { self.limits($0) })
    }

    /// What was tried at one server.
    struct Recorder: Sendable {
        let place: String
        var cases = 0
        var answered = 0
        var closed = 0
        var violations: [Violation] = []
        var notes: [String] = []

        init(_ server: ServerProcess) {
            place = server.name
        }

        /// Tries one thing; what is thrown breaks the rule.
        mutating func attempt(_ subject: String, _ rule: Violation.Rule = .bound, _ body: (inout Recorder) throws -> Void) {
            cases += 1
            let before = violations.count
            do {
                try body(&self)
                if violations.count == before { answered += 1 }
            } catch {
                fail(subject, rule, "\(error)")
            }
        }

        mutating func fail(_ subject: String, _ rule: Violation.Rule = .bound, _ text: String) {
            violations.append(Violation(part: "slow", subject: subject, place: place, rule: rule, text: text))
        }

        /// Notes what is wrong with answers by themselves.
        mutating func check(_ subject: String, _ answers: [Answer]) {
            for (rule, text) in Judge.faults(of: answers) { fail(subject, rule, text) }
        }
    }

    // MARK: Requests

    private static let counter = Mutex(40_000_000)

    private func number() -> Int {
        Self.counter.withLock {
            $0 += 1
            return $0
        }
    }

    private func hot(_ server: ServerProcess) -> Draft {
        requests.changing(server.name == "product-server" ? .productHot : .orderHot, number(), port: server.port)
    }

    private func other(_ server: ServerProcess) -> Draft {
        requests.reading(server.name == "product-server" ? .productHot : .orderHot, number(), port: server.port)
    }

    /// A hot request that is refused at once: cheap to answer.
    private func cheap(_ server: ServerProcess) -> Draft {
        var draft = hot(server)
        draft.body = draft.body.replacing("\"quantity\":1", with: "\"quantity\":0")
        return draft
    }

    /// Answers until so many are there or the connection ends.
    private func answers(_ connection: Connection, _ count: Int, within bound: Duration) throws -> (answers: [Answer], hasEnded: Bool) {
        let deadline = ContinuousClock.now + bound
        var reader = AnswerReader()
        var answers: [Answer] = []
        while answers.count < count {
            while answers.count < count, let answer = try reader.next() { if !answer.isInterim { answers.append(answer) } }
            if answers.count >= count { break }
            switch connection.receive(until: deadline) {
            case .bytes(let bytes): reader.append(bytes)
            case .end, .reset:
                if let last = try reader.finish() { answers.append(last) }
                return (answers, true)
            case .nothing: return (answers, false)
            }
        }
        return (answers, false)
    }

    // MARK: Slow

    /// Everything that needs the servers with short times.
    private func slow(_ server: ServerProcess) -> Recorder {
        // Warm: pools are filled, code is loaded.
        for _ in 0..<20 { _ = try? Caller(port: server.port).send(hot(server).adding("Connection: close")) }
        let together: [@Sendable (inout Recorder) -> Void] = [
            { self.dribbledHead(server, &$0) }, { self.endless(server, &$0) }, { self.idle(server, &$0) },
            { self.busy(server, pause: 0, &$0) }, { self.busy(server, pause: 700_000, &$0) },
            { self.halfCloses(server, &$0) }, { self.pipelined(server, &$0) },
        ]
        var recorder = Recorder(server)
        for part in Self.atOnce(
            together.count,
            { index in
                var part = Recorder(server)
                together[index](&part)
                return part
            }
        ) { recorder.join(part) }
        unread(server, &recorder)
        many(server, &recorder)
        resets(server, &recorder)
        return recorder
    }

    private func dribbledHead(_ server: ServerProcess, _ recorder: inout Recorder) {
        recorder.attempt("a hot request byte by byte, in time") { recorder in
            let connection = try Connection(port: server.port)
            let draft = hot(server)
            for byte in [UInt8](latin1: draft.text) {
                connection.send([byte], until: .now + .seconds(1))
                usleep(2_000)
            }
            let (answers, _) = try answers(connection, 1, within: .seconds(3))
            recorder.check("a hot request byte by byte, in time", answers)
            guard answers.first?.isSuccess == true else {
                throw Caller.Failure(description: "\(answers.first.map { "\($0.status)" } ?? "no answer")")
            }
        }
    }

    /// Requests that never become whole: each must be ended when its time is up, with a refusal in the one shape or without a word.
    private func endless(_ server: ServerProcess, _ recorder: inout Recorder) {
        let whole = hot(server).text
        // Shorter than what an idle connection has: that is not what must end these.
        let bound = Self.requestTimeout + .seconds(1) + size.slack
        let router = other(server).text
        let halfHead = String(whole.unicodeScalars.prefix(70))
        let noBody = String(whole.unicodeScalars.dropLast(10))
        let dribbles: [(String, String, String)] = [
            ("half a head, then silence", halfHead, ""), ("half a body, then silence", noBody, ""),
            ("a head that never ends, a byte every 100 ms", halfHead, "a"),
            ("a body that never ends, a byte every 100 ms", noBody.with(length: 100), " "),
            ("half a chunked body, then silence", hot(server).chunked(body: "5\r\n{\"ord").text, ""),
            ("silence behind another request", router + halfHead, ""), ("nothing at all but a line end", "\r\n", ""),
        ]
        let faults = Self.atOnce(dribbles.count) { index in
            Self.neverEnding(
                port: server.port,
                dribbles[index].1,
                dribbles[index].2,
                after: Self.requestTimeout - .milliseconds(200),
                before: bound
            )
        }
        for ((name, _, _), why) in zip(dribbles, faults) {
            recorder.cases += 1
            if let why { recorder.fail(name, .bound, why) } else { recorder.closed += 1 }
        }
    }

    /// So many things, each on a thread of its own.
    private static func atOnce<Value: Sendable>(_ count: Int, _ work: @escaping @Sendable (Int) -> Value) -> [Value] {
        let values = Mutex<[Int: Value]>([:])
        let group = DispatchGroup()
        for index in 0..<count {
            group.enter()
            Thread.detachNewThread {
                defer { group.leave() }
                let value = work(index)
                values.withLock { $0[index] = value }
            }
        }
        group.wait()
        return values.withLock { values in (0..<count).compactMap { values[$0] } }
    }

    /// Why a connection with part of a request was not ended in time; nil if it was.
    static func neverEnding(port: Int, _ begin: String, _ drip: String, after least: Duration, before bound: Duration) -> String? {
        do {
            let connection = try Connection(port: port)
            let began = ContinuousClock.now
            connection.send(begin)
            var reader = AnswerReader()
            while ContinuousClock.now - began < bound {
                switch connection.receive(until: .now + .milliseconds(100)) {
                case .bytes(let bytes):
                    reader.append(bytes)
                    while let answer = try reader.next() {
                        if answer.status >= 400, let fault = answer.errorShapeFault { return "\(answer.status) with \(fault)" }
                        if answer.status >= 500 { return "\(answer.status)" }
                    }
                case .end, .reset:
                    let took = ContinuousClock.now - began
                    return took < least ? "ended after \(took), before its time" : nil
                case .nothing: if !drip.isEmpty { connection.send(drip) }
                }
            }
            return "still open after \(bound)"
        } catch {
            return "\(error)"
        }
    }

    /// A connection without a request is closed after its time, and not before.
    private func idle(_ server: ServerProcess, _ recorder: inout Recorder) {
        let drafts = [("idle behind a hot request", hot(server)), ("idle behind another request", other(server))]
        let latest = Self.idleTimeout + .seconds(3) + size.slack
        do {
            let connections = try drafts.map { name, draft in
                let connection = try Connection(port: server.port)
                connection.send(draft.text)
                recorder.check(name, try answers(connection, 1, within: .seconds(5)).answers)
                return connection
            }
            let began = ContinuousClock.now
            for ((name, _), connection) in zip(drafts, connections) {
                recorder.attempt(name) { _ in
                    guard connection.ends(before: began + latest) else {
                        throw Caller.Failure(description: "not closed \(latest) after the last answer; IDLE_TIMEOUT is 6s")
                    }
                    if ContinuousClock.now - began < Self.idleTimeout - .milliseconds(700) {
                        throw Caller.Failure(description: "closed after \(ContinuousClock.now - began); IDLE_TIMEOUT is 6s")
                    }
                }
            }
        } catch {
            recorder.fail("idle", .noAnswer, "\(error)")
        }
    }

    /// A connection in use is not closed for being idle.
    private func busy(_ server: ServerProcess, pause: UInt32, _ recorder: inout Recorder) {
        // Without a pause the time is up while a request is worked on; with pauses, between two.
        let name =
            pause == 0
            ? "hot requests one after another for longer than IDLE_TIMEOUT" : "a hot request every 700 ms for longer than IDLE_TIMEOUT"
        recorder.attempt(name) { recorder in
            let connection = try Connection(port: server.port)
            let began = ContinuousClock.now
            while ContinuousClock.now - began < Self.idleTimeout + .seconds(1) {
                connection.send(hot(server).text)
                let (answers, hasEnded) = try answers(connection, 1, within: .seconds(3))
                guard answers.count == 1, !hasEnded, !answers[0].announcesClose else {
                    throw Caller.Failure(description: "closed after \(ContinuousClock.now - began) of use")
                }
                if pause > 0 { usleep(pause) }
            }
        }
    }

    /// Whoever has finished sending gets all its answers, then the end.
    private func halfCloses(_ server: ServerProcess, _ recorder: inout Recorder) {
        let (hot, other) = ({ self.hot(server).text }, { self.other(server).text })
        let chunked = { self.hot(server).chunked().text }
        let shapes: [(String, [String])] = [
            ("hot, end", [hot()]), ("other, end", [other()]), ("hot, other, end", [hot(), other()]), ("other, hot, end", [other(), hot()]),
            ("chunked, hot, end", [chunked(), hot()]), ("hot, hot, other, hot, end", [hot(), hot(), other(), hot()]),
        ]
        for (name, texts) in shapes {
            recorder.attempt(name, .stuck) { recorder in
                let connection = try Connection(port: server.port)
                connection.send(texts.joined())
                connection.finishSending()
                let (answers, _) = try answers(connection, texts.count, within: .seconds(3))
                recorder.check(name, answers)
                guard answers.count == texts.count else {
                    throw Caller.Failure(description: "\(answers.count) of \(texts.count) requests answered")
                }
                guard connection.ends(before: .now + .seconds(3)) else {
                    throw Caller.Failure(description: "not closed behind the last answer")
                }
            }
        }
    }

    /// Many requests at once on one connection are answered in their order.
    private func pipelined(_ server: ServerProcess, _ recorder: inout Recorder) {
        recorder.attempt("400 requests in one packet, hot and other", .order) { recorder in
            let connection = try Connection(port: server.port)
            let drafts = (0..<400).map { $0 % 5 == 4 ? other(server) : cheap(server) }
            connection.send([UInt8](latin1: drafts.map(\.text).joined())[...], until: .now + .seconds(5))
            let (answers, _) = try answers(connection, drafts.count, within: .seconds(20))
            guard answers.count == drafts.count else { throw Caller.Failure(description: "\(answers.count) of \(drafts.count) answered") }
            for (draft, answer) in zip(drafts, answers) where answer.requestID != draft.id {
                throw Caller.Failure(description: "the answer to \(draft.id) is \(answer.requestID ?? "nobody")'s")
            }
        }
    }

    // MARK: Memory

    /// Clients that ask and never read.
    private func unread(_ server: ServerProcess, _ recorder: inout Recorder) {
        // The first round is not measured: what a server takes for the first thousands of requests of its life is no connection's.
        for (name, draft, isMeasured) in [
            ("hot requests, answers never read", cheap(server), false), ("hot requests, answers never read", cheap(server), true),
            ("other requests, answers never read", documentRequest(server), true),
        ] {
            recorder.attempt(name) { recorder in
                let count = 4
                let (before, descriptors) = (server.memory, server.descriptors)
                let packet = [UInt8](latin1: String(repeating: draft.text, count: max(1, 32_768 / draft.text.byteCount)))
                var connections = try (0..<count).map { _ in try Connection(port: server.port, receiveBuffer: 4_096) }
                var peak = before
                var sent = 0
                var refusedAt: ContinuousClock.Instant?
                let began = ContinuousClock.now
                // Until all are held back for a second, or have sent all they may.
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
                // Where the allocator keeps some for itself: half as much again for all of them together.
                if isMeasured, grown > count * 2 * 1024 * 1024 + 4 * 1024 * 1024 {
                    recorder.fail(name, .bound, "memory grew by \(grown / 1024 / 1024) MiB for \(count) connections, at most 2 MiB each")
                }
                let bound = Self.answerTimeout + .seconds(3) + size.slack
                if !server.hasDescriptors(atMost: descriptors, within: bound) {
                    recorder.fail(
                        name,
                        .bound,
                        "\(server.descriptors - descriptors) of \(count) connections still open \(bound) later; ANSWER_TIMEOUT is 2s"
                    )
                }
                for connection in connections { connection.reset() }
                connections.removeAll()
                _ = server.hasDescriptors(atMost: descriptors, within: .seconds(5))
                let health = try Caller(port: server.port).call("GET", "/livez")
                if health.status != 200 { recorder.fail(name, .bystander, "/livez is \(health.status)") }
            }
        }
    }

    private func documentRequest(_ server: ServerProcess) -> Draft {
        requests.bodiless("GET", "/openapi.json", number(), server.port)
    }

    /// Many connections that ask for nothing.
    private func many(_ server: ServerProcess, _ recorder: inout Recorder) {
        let name = "\(size.idle) idle connections"
        recorder.attempt(name) { recorder in
            let (before, descriptors) = (server.memory, server.descriptors)
            var connections: [Connection] = []
            let began = ContinuousClock.now
            for index in 0..<size.idle {
                connections.append(try Connection(port: server.port, from: "127.0.\(1 + index / 200).\(1 + index % 200)"))
            }
            let health = try Caller(port: server.port).call("GET", "/livez", within: .seconds(2))
            let order = try Caller(port: server.port).send(hot(server).adding("Connection: close"), within: .seconds(5))
            if !health.isSuccess || !order.isSuccess {
                recorder.fail(name, .bystander, "/livez \(health.status), a hot request \(order.status)")
            }
            let grown = server.memory - before
            recorder.notes.append("\(server.name): \(name): \(grown / max(1, size.idle)) bytes each")
            if grown > size.idle * 64 * 1024 { recorder.fail(name, .bound, "\(grown / size.idle) bytes each") }
            // Silent from the beginning: the time of a head, or of an idle connection, is up at some moment.
            let bound = max(Self.idleTimeout, Self.requestTimeout) + .seconds(4) + size.slack
            if size.waitsForIdle, !server.hasDescriptors(atMost: descriptors + 4, within: bound) {
                recorder.fail(
                    name,
                    .bound,
                    "\(server.descriptors - descriptors) still open \(ContinuousClock.now - began) after the first was opened"
                )
            }
            connections.removeAll()
            if !server.hasDescriptors(atMost: descriptors + 4, within: .seconds(5)) {
                recorder.fail(name, .bound, "\(server.descriptors - descriptors) descriptors more than before")
            }
        }
    }

    /// Connections that are cut while a request is worked on.
    private func resets(_ server: ServerProcess, _ recorder: inout Recorder) {
        let name = "\(size.resets) resets during requests"
        recorder.attempt(name) { recorder in
            cut(server, size.resets / 4)
            _ = server.hasDescriptors(atMost: 0, within: .milliseconds(500))
            let (before, descriptors) = (server.memory, server.descriptors)
            cut(server, size.resets)
            // All of them wait to be accepted and found dead.
            let health = try Caller(port: server.port).call("GET", "/livez", within: .seconds(60))
            if !health.isSuccess { recorder.fail(name, .bystander, "/livez is \(health.status)") }
            if !server.hasDescriptors(atMost: descriptors + 4, within: .seconds(10)) {
                recorder.fail(name, .bound, "\(server.descriptors - descriptors) descriptors more than before")
            }
            let grown = server.memory - before
            recorder.notes.append("\(server.name): \(name): memory grew by \(grown / 1024) KiB")
            if grown > max(4 * 1024 * 1024, size.resets * 512) { recorder.fail(name, .bound, "memory grew by \(grown / 1024) KiB") }
        }
    }

    private func cut(_ server: ServerProcess, _ count: Int) {
        let left = Mutex(count)
        _ = Self.atOnce(4) { _ in
            while true {
                let index = left.withLock { left in
                    left -= 1
                    return left
                }
                guard index >= 0 else { return }
                guard let connection = try? Connection(port: server.port) else { continue }
                switch index % 6 {
                case 0: connection.send(self.hot(server).text + self.other(server).text)
                case 1: connection.send(String(self.hot(server).text.unicodeScalars.prefix(90)))
                case 2: connection.send(self.other(server).text + self.hot(server).text)
                default: connection.send(self.hot(server).text)
                }
                // Some are cut when the server has begun.
                if index % 3 == 0 { usleep(500) }
                connection.reset()
            }
        }
    }

    /// SIGTERM with idle connections open.
    private func stop(_ server: ServerProcess) -> Recorder {
        var recorder = Recorder(server)
        recorder.attempt("SIGTERM") { recorder in
            let idle = try (0..<20).map { index in
                let connection = try Connection(port: server.port)
                if index % 2 == 0 {
                    connection.send(hot(server).text)
                    _ = try answers(connection, 1, within: .seconds(5))
                }
                return connection
            }
            let (status, took) = server.stop(within: .seconds(30))
            recorder.notes.append("\(server.name): SIGTERM: exit status \(status.map(String.init) ?? "none") after \(took)")
            if status != 0 {
                recorder.fail(
                    "SIGTERM",
                    .bound,
                    "exit status \(status.map(String.init) ?? "none within 30 s"): \(server.lastLines.shown(limit: 300))"
                )
            }
            if took > .seconds(1) + size.slack { recorder.fail("SIGTERM", .bound, "it took \(took), at most 1 s") }
            withExtendedLifetime(idle) {}
        }
        return recorder
    }

    // MARK: Many

    /// Bounds of connections.
    private func limits(_ server: ServerProcess) -> Recorder {
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
    private func silentAdmins(product: ServerProcess, order: ServerProcess) -> Recorder {
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

    private func retry(within bound: Duration, _ body: () throws -> Void) throws {
        let deadline = ContinuousClock.now + bound
        while true {
            do { return try body() } catch { if ContinuousClock.now >= deadline { throw error } }
            usleep(50_000)
        }
    }
}

extension SlowPart.Recorder {
    mutating func join(_ other: SlowPart.Recorder) {
        cases += other.cases
        answered += other.answered
        closed += other.closed
        violations += other.violations
        notes += other.notes
    }
}

extension PartReport {
    mutating func add(_ recorder: SlowPart.Recorder) {
        cases += recorder.cases
        answered += recorder.answered
        closed += recorder.closed
        violations += recorder.violations
        notes += recorder.notes
    }
}

extension String {
    /// A request's text with another `Content-Length`, so that its body is never whole.
    fileprivate func with(length: Int) -> String {
        guard let range = firstRange(of: "Content-Length: ") else { return self }
        let rest = self[range.upperBound...]
        return self[..<range.upperBound] + "\(length)" + rest.drop { $0.isNumber }
    }
}
