// Sends what a case has to send and writes down what happens.
//
// Bounds: a pause in the answers is waited for `patience` at most; the whole exchange ends within a few times that.

/// One thing that a case does.
enum Step: Sendable, Equatable {
    /// Sends these bytes, each a character of the text.
    case send(String)
    /// Waits for an interim answer, or any.
    case awaitInterim
    /// Waits for so many milliseconds.
    case pause(milliseconds: Int)
    /// Says that nothing more will be sent.
    case finishSending
}

/// What happened.
struct Transcript: Sendable {
    /// How the connection ended.
    enum Ending: Sendable, Equatable {
        /// The server closed it, or cut it, before the probe was sent.
        case closed
        /// The server closed it behind the answer to the probe, as the probe asks.
        case probed
        /// The connection stayed open although the server had said, or had been asked, to close it.
        case leftOpen
        /// An answer was missing on an open connection; whether the server ended it once the client had finished sending.
        case silent(endedAfterwards: Bool)
    }

    /// Final answers before the probe.
    var answers: [Answer] = []
    /// Interim answers, and how long after their request's head they came.
    var interim: [(answer: Answer, after: Duration)] = []
    /// Answers behind the probe; the last one should be its own.
    var probeAnswers: [Answer] = []
    /// Answers that came only when the client had finished sending.
    var lateAnswers: [Answer] = []
    var ending = Ending.closed
    /// Bytes that are no answer.
    var fault: AnswerFault?
    /// Whether the client had finished sending before the last answer was due.
    var hasFinishedSending = false

    /// The transcript in short, such as `200 400+close`.
    var shown: String {
        var words = answers.map { String($0.status) + ($0.announcesClose ? "+close" : "") }
        if let fault { words.append("(\(fault))") }
        switch ending {
        case .closed: words.append("closed")
        case .probed: break
        case .leftOpen: words.append("left open")
        case .silent(let ended): words.append("silence" + (ended ? ", ended when the client gave up" : ", never ended"))
        }
        words += lateAnswers.map { "late \($0.status)" }
        return words.joined(separator: " ")
    }
}

/// One connection with a case on it.
struct Exchange {
    let port: Int
    var patience: Duration = .seconds(2)
    /// A server that has said `Connection: close` may read on for so long, so that its answer is not lost to a reset (RFC 9112, 9.6). nginx does for 5 s.
    static let lingering = Duration.seconds(7)

    /// - Parameters:
    ///   - answers: as many final answers are waited for; then the connection is probed
    ///   - methods: of the requests, where an answer's end depends on it
    ///   - probe: a request with `Connection: close`, sent on a connection that is still open when all answers are there; nil where part of a request has
    ///     been sent: then the client finishes sending instead
    /// - Throws: `Connection.Failure` if there is no connection
    func perform(_ steps: [Step], answers expected: Int, methods: [String] = [], probe: String?) throws -> Transcript {
        let connection = try Connection(port: port)
        defer { connection.close() }
        var reader = Reading(methods: methods)
        var sentAt = ContinuousClock.now
        var isBroken = false
        for step in steps where !isBroken && !reader.isOver {
            switch step {
            case .send(let text):
                let bytes = [UInt8](latin1: text)
                sentAt = .now
                isBroken = connection.send(bytes[...], until: .now + patience * 2) < bytes.count
            case .awaitInterim:
                reader.read(connection, for: patience, since: sentAt) { !$0.interim.isEmpty || !$0.answers.isEmpty }
            case .pause(let milliseconds):
                reader.read(connection, for: .milliseconds(milliseconds), since: sentAt) { _ in false }
            case .finishSending:
                connection.finishSending()
                reader.transcript.hasFinishedSending = true
            }
        }
        reader.read(connection, for: patience, since: sentAt) { $0.answers.count >= expected || $0.answers.last?.announcesClose == true }
        if !reader.isOver, reader.transcript.answers.last?.announcesClose == true {
            reader.read(connection, for: max(patience, Self.lingering), since: sentAt) { _ in false }
            if !reader.isOver { reader.transcript.ending = .leftOpen }
            return reader.transcript
        }
        if reader.isOver { return reader.transcript }

        if reader.transcript.answers.count < expected {
            connection.finishSending()
            let before = reader.transcript.answers.count
            reader.read(connection, for: patience, since: sentAt) { _ in false }
            reader.transcript.lateAnswers = Array(reader.transcript.answers.dropFirst(before))
            reader.transcript.answers.removeLast(reader.transcript.lateAnswers.count)
            reader.transcript.ending = .silent(endedAfterwards: reader.isOver)
            return reader.transcript
        }
        if probe == nil, !reader.transcript.hasFinishedSending {
            // The server must not answer while the rest of the request is missing.
            reader.read(connection, for: .milliseconds(200), since: sentAt) { _ in false }
            if reader.isOver { return reader.transcript }
            connection.finishSending()
            reader.transcript.hasFinishedSending = true
            let before = reader.transcript.answers.count
            reader.read(connection, for: patience, since: sentAt) { _ in false }
            reader.transcript.lateAnswers = Array(reader.transcript.answers.dropFirst(before))
            reader.transcript.answers.removeLast(reader.transcript.lateAnswers.count)
            if !reader.isOver { reader.transcript.ending = .leftOpen }
            return reader.transcript
        }
        if reader.transcript.hasFinishedSending {
            reader.read(connection, for: patience, since: sentAt) { _ in false }
            if !reader.isOver { reader.transcript.ending = .leftOpen }
            return reader.transcript
        }
        let before = reader.transcript.answers.count
        if let probe { connection.send(probe) }
        reader.read(connection, for: patience, since: .now) { _ in false }
        reader.transcript.probeAnswers = Array(reader.transcript.answers.dropFirst(before))
        reader.transcript.answers.removeLast(reader.transcript.probeAnswers.count)
        // A connection that ended under the probe without an answer was closed before it.
        reader.transcript.ending = !reader.isOver ? .leftOpen : reader.transcript.probeAnswers.isEmpty ? .closed : .probed
        return reader.transcript
    }

    /// Reads answers off a connection into a transcript.
    private struct Reading {
        var reader: AnswerReader
        var transcript = Transcript()
        /// Nothing more can come.
        var isOver = false

        init(methods: [String]) {
            reader = AnswerReader(methods: methods)
        }

        /// Reads until something holds, nothing comes for so long, or the connection is over.
        mutating func read(
            _ connection: Connection,
            for patience: Duration,
            since began: ContinuousClock.Instant,
            until holds: (Transcript) -> Bool
        ) {
            var deadline = ContinuousClock.now + patience
            while !isOver, !holds(transcript) {
                switch connection.receive(until: deadline) {
                case .bytes(let bytes):
                    reader.append(bytes)
                    deadline = .now + patience
                    take(since: began)
                case .end, .reset:
                    isOver = true
                    do throws(AnswerFault) {
                        if transcript.fault == nil, let last = try reader.finish() { transcript.answers.append(last) }
                    } catch {
                        transcript.fault = error
                    }
                case .nothing: return
                }
            }
        }

        private mutating func take(since began: ContinuousClock.Instant) {
            do throws(AnswerFault) {
                while let answer = try reader.next() {
                    if answer.isInterim {
                        transcript.interim.append((answer, .now - began))
                    } else {
                        transcript.answers.append(answer)
                    }
                }
            } catch {
                // What follows cannot be read; the connection is still watched for its end.
                transcript.fault = transcript.fault ?? error
            }
        }
    }
}
