import Foundation

/// Asks a server one thing, properly, over a connection that is used for nothing else.
struct Caller: Sendable {
    let port: Int
    var source: String?

    /// Why there was no answer.
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// - Throws: ``Failure``, `Connection.Failure` or `AnswerFault` if there is no answer within the bound
    func call(_ method: String, _ path: String, body: String? = nil, lines: [String] = [], within bound: Duration = .seconds(10)) throws
        -> Answer
    {
        var draft = Draft(
            method: method,
            target: path,
            lines: ["Host: 127.0.0.1:\(port)", "Connection: close"] + lines,
            body: body ?? "",
            id: "",
            effect: nil
        )
        if let body { draft.lines += ["Content-Type: application/json", "Content-Length: \(body.byteCount)"] }
        return try send(draft, within: bound)
    }

    /// Sends a request that closes its connection.
    func send(_ draft: Draft, within bound: Duration = .seconds(10)) throws -> Answer {
        let connection = try Connection(port: port, from: source)
        defer { connection.close() }
        connection.send(draft.text)
        return try Self.answer(on: connection, to: draft.method, within: bound)
    }

    /// The next final answer on a connection.
    static func answer(on connection: Connection, to method: String = "GET", within bound: Duration) throws -> Answer {
        let deadline = ContinuousClock.now + bound
        var reader = AnswerReader(methods: [method])
        while true {
            while let answer = try reader.next() {
                if !answer.isInterim { return answer }
            }
            switch connection.receive(until: deadline) {
            case .bytes(let bytes): reader.append(bytes)
            case .end, .reset:
                if let answer = try reader.finish() { return answer }
                throw Failure(description: "the connection was closed without an answer")
            case .nothing: throw Failure(description: "no answer within \(bound)")
            }
        }
    }
}

/// Somebody who uses the gateway properly over a connection that stays open, while others misbehave.
final class Bystander {
    private let port: Int
    private var connection: Connection?

    init(port: Int) {
        self.port = port
    }

    /// Why a proper request was not answered with success; nil if it was.
    func ask(_ draft: Draft, within bound: Duration) -> String? {
        do {
            let connection = try self.connection ?? Connection(port: port)
            self.connection = connection
            connection.send(draft.text)
            let answer = try Caller.answer(on: connection, to: draft.method, within: bound)
            if answer.announcesClose { self.connection = nil }
            if !answer.isSuccess { return "\(draft.method) \(draft.target): \(answer.status) \(answer.body.latin1.shown(limit: 80))" }
            if answer.requestID != draft.id { return "\(draft.method) \(draft.target): the answer is \(answer.requestID ?? "nobody")'s" }
            return nil
        } catch {
            self.connection = nil
            return "\(draft.method) \(draft.target): \(error)"
        }
    }
}
