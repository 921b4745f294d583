import APIErrors
import Eventually
import ServerKit
import StockContract
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

@Suite("Buyers' deadlines", .timeLimit(.minutes(1)))
struct BuyerDeadlineTests {
    private final class Answers: Sendable {
        let all = Mutex<[Result<PlacedOrder, APIError>]>([])
        var count: Int { all.withLock { $0.count } }
        func wait(for count: Int) async throws {
            try await eventually("\(self.count) of \(count) answers", every: .milliseconds(1)) { self.count >= count }
        }
        func error(_ place: Int) -> APIError? {
            self.all.withLock { all in
                guard all.indices.contains(place), case .failure(let error) = all[place] else { return nil }
                return error
            }
        }
    }

    private func wait(_ answers: Answers, in time: Duration) -> BuyerWait {
        BuyerWait(deadline: .now + time) { answer in answers.all.withLock { $0.append(answer) } }
    }

    @Test("whoever is not answered is, at the deadline, once; what comes later is dropped")
    func expires() async throws {
        let (deadlines, answers) = (BuyerDeadlines(tick: .milliseconds(1)), Answers())
        let nothing = self.wait(answers, in: .milliseconds(20))
        deadlines.watch(nothing)
        try await answers.wait(for: 1)
        #expect(answers.error(0)?.code == .unavailable && answers.error(0)?.retryAfter != nil)
        let made = self.wait(answers, in: .milliseconds(20))
        // Begun before it is watched: the deadline may come at once.
        made.began(7, .pending)
        deadlines.watch(made)
        try await answers.wait(for: 2)
        #expect(answers.error(1)?.code == .dependencyFailed && answers.error(1)?.details["orderId"] == 7)
        #expect(answers.error(1)?.details["status"] == "PENDING")
        made.answer(.failure(APIError(.internalError)))
        made.expire()
        #expect(answers.count == 2)
        #expect(deadlines.count == 0)
    }

    @Test("who is answered in time is not answered again, and is forgotten")
    func answered() async throws {
        let (deadlines, answers, last) = (BuyerDeadlines(tick: .milliseconds(1)), Answers(), Answers())
        for _ in 0..<1_000 {
            let wait = self.wait(answers, in: .milliseconds(50))
            deadlines.watch(wait)
            wait.answer(.failure(APIError(.keyReused)))
        }
        deadlines.watch(self.wait(last, in: .milliseconds(100)))
        try await last.wait(for: 1)
        #expect(answers.count == 1_000)
        #expect(deadlines.count == 0)
    }

    @Test("who is answered is forgotten with those who come, long before the deadline; behind one who waits all are kept until then")
    func forgotten() async throws {
        let (deadlines, answers) = (BuyerDeadlines(), Answers())
        func come(isAnswered: Bool = true) -> BuyerWait {
            let wait = self.wait(answers, in: .seconds(3_600))
            deadlines.watch(wait)
            if isAnswered { wait.answer(.failure(APIError(.keyReused))) }
            return wait
        }
        for _ in 0..<1_000 { _ = come() }
        #expect(deadlines.count <= 2)
        let slow = come(isAnswered: false)
        for _ in 0..<100 { _ = come() }
        #expect(deadlines.count == 101)
        slow.answer(.failure(APIError(.keyReused)))
        for _ in 0..<101 { _ = come() }
        #expect(deadlines.count <= 2)
        #expect(answers.count == 1_202)
    }

    @Test("a buyer counts as waiting from his coming to his answer")
    func counted() async throws {
        let waiting = WaitingBuyers()
        let (deadlines, answers) = (BuyerDeadlines(waiting, time: .seconds(3_600)), Answers())
        func come(to deadlines: BuyerDeadlines) -> BuyerWait { deadlines.begin { answer in answers.all.withLock { $0.append(answer) } } }
        var waits: [BuyerWait] = []
        for number in 1...40 {
            waits.append(come(to: deadlines))
            #expect(waiting.count == number)
        }
        // Once each, however often they are answered.
        for _ in 0..<2 { for wait in waits { wait.answer(.failure(APIError(.keyReused))) } }
        #expect(waiting.count == 0 && answers.count == 40)
        // The deadline answers as well, and an outcome that comes behind it counts no more.
        let hasty = BuyerDeadlines(waiting, time: .milliseconds(20), tick: .milliseconds(1))
        let late = come(to: hasty)
        try await answers.wait(for: 41)
        late.answer(.failure(APIError(.keyReused)))
        #expect(waiting.count == 0 && answers.count == 41)
    }
}
