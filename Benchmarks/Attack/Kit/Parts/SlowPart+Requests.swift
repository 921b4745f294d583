import Foundation
import Synchronization

extension SlowPart {
    private static let counter = Mutex(40_000_000)

    func number() -> Int {
        Self.counter.withLock {
            $0 += 1
            return $0
        }
    }

    func hot(_ server: ServerProcess) -> Draft {
        requests.changing(server.name == "product-server" ? .productHot : .orderHot, number(), port: server.port)
    }

    func other(_ server: ServerProcess) -> Draft {
        requests.reading(server.name == "product-server" ? .productHot : .orderHot, number(), port: server.port)
    }

    /// A hot request that is refused at once: cheap to answer.
    func cheap(_ server: ServerProcess) -> Draft {
        var draft = hot(server)
        draft.body = draft.body.replacing("\"quantity\":1", with: "\"quantity\":0")
        return draft
    }

    /// How long an answer is waited for. An order may take all of ORDER_DEADLINE (3 s), so this is as much again.
    var answerTime: Duration { .seconds(6) + size.slack }

    /// Answers until so many are there or the connection ends.
    func answers(_ connection: Connection, _ count: Int, within bound: Duration) throws -> (answers: [Answer], hasEnded: Bool) {
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

    func documentRequest(_ server: ServerProcess) -> Draft {
        requests.bodiless("GET", "/openapi.json", number(), server.port)
    }

    func retry(within bound: Duration, _ body: () throws -> Void) throws {
        let deadline = ContinuousClock.now + bound
        while true {
            do { return try body() } catch { if ContinuousClock.now >= deadline { throw error } }
            usleep(50_000)
        }
    }
}
