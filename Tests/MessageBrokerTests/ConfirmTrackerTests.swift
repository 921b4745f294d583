import Testing

@testable import MessageBroker

@Suite("Confirms")
struct ConfirmTrackerTests {
    typealias Tracker = ConfirmTracker<String>

    /// A tracker with the messages a, b, c, … written, and what it settled so far.
    struct Run {
        var tracker = Tracker()
        var settled: [String: PublishOutcome] = [:]
        var settlements = 0

        init(_ names: String...) {
            for (index, name) in names.enumerated() { #expect(tracker.wrote(name) == UInt64(index + 1)) }
        }

        mutating func acknowledge(_ tag: UInt64, multiple: Bool = false) -> Tracker.Answer {
            var now: [(String, PublishOutcome)] = []
            let answer = tracker.acknowledged(tag, multiple: multiple) { now.append(($0, $1)) }
            note(now)
            return answer
        }

        mutating func refuse(_ tag: UInt64, multiple: Bool = false) -> Tracker.Answer {
            var now: [(String, PublishOutcome)] = []
            let answer = tracker.refused(tag, multiple: multiple) { now.append(($0, $1)) }
            note(now)
            return answer
        }

        mutating func lose() {
            var now: [(String, PublishOutcome)] = []
            tracker.lost { now.append(($0, $1)) }
            note(now)
        }

        private mutating func note(_ now: [(String, PublishOutcome)]) {
            settlements += now.count
            for (name, outcome) in now {
                #expect(settled[name] == nil, "settled twice")
                settled[name] = outcome
            }
        }
    }

    @Test func oneByOneInAnyOrder() {
        var run = Run("a", "b", "c")
        #expect(run.acknowledge(2) == .settled(1))
        #expect(run.refuse(1) == .settled(1))
        #expect(run.tracker.inFlight == 1)
        #expect(run.acknowledge(3) == .settled(1))
        #expect(run.settled == ["a": .rejected, "b": .confirmed, "c": .confirmed])
        #expect(run.tracker.inFlight == 0)
        #expect(run.tracker.next == 4)
    }

    @Test func multipleSettlesWhatIsOpenUpToTheTag() {
        var run = Run("a", "b", "c", "d")
        #expect(run.refuse(2) == .settled(1))
        #expect(run.acknowledge(3, multiple: true) == .settled(2))
        #expect(run.settled == ["a": .confirmed, "b": .rejected, "c": .confirmed])
        #expect(run.refuse(0, multiple: true) == .settled(1))
        #expect(run.settled["d"] == .rejected)
    }

    @Test func returnedIsSettledByItsAcknowledgement() {
        var run = Run("a", "b", "c")
        #expect(run.tracker.returned(2, code: 312, text: "NO_ROUTE") == .settled(0))
        #expect(run.settled.isEmpty)
        #expect(run.acknowledge(3, multiple: true) == .settled(3))
        #expect(run.settled == ["a": .confirmed, "b": .returned(code: 312, text: "NO_ROUTE"), "c": .confirmed])
    }

    @Test func returnedAndThenRefusedIsRejected() {
        var run = Run("a")
        #expect(run.tracker.returned(1, code: 312, text: "NO_ROUTE") == .settled(0))
        #expect(run.refuse(1) == .settled(1))
        #expect(run.settled == ["a": .rejected])
    }

    @Test func repeatedAnswersChangeNothing() {
        var run = Run("a", "b", "c")
        #expect(run.acknowledge(2) == .settled(1))
        #expect(run.acknowledge(2) == .settled(0))
        #expect(run.refuse(2) == .settled(0))
        #expect(run.tracker.returned(2, code: 312, text: "") == .settled(0))
        #expect(run.acknowledge(1) == .settled(1))
        // Both have left the window.
        #expect(run.acknowledge(1) == .settled(0))
        #expect(run.refuse(2, multiple: true) == .settled(0))
        #expect(run.tracker.returned(1, code: 312, text: "") == .settled(0))
        #expect(run.settled == ["a": .confirmed, "b": .confirmed])
        #expect(run.tracker.inFlight == 1)
    }

    @Test func answersToWhatWasNeverWritten() {
        var run = Run("a")
        #expect(run.acknowledge(2) == .neverWritten)
        #expect(run.acknowledge(2, multiple: true) == .neverWritten)
        #expect(run.refuse(0) == .neverWritten)
        #expect(run.tracker.returned(0, code: 312, text: "") == .neverWritten)
        #expect(run.tracker.returned(2, code: 312, text: "") == .neverWritten)
        #expect(run.settlements == 0)
        var empty = Run()
        #expect(empty.acknowledge(0, multiple: true) == .settled(0))
        #expect(empty.acknowledge(1) == .neverWritten)
    }

    @Test func lostLeavesOpenOnesUnknownAndBeginsAgain() {
        var run = Run("a", "b", "c", "d")
        #expect(run.acknowledge(1) == .settled(1))
        #expect(run.acknowledge(3) == .settled(1))
        #expect(run.tracker.returned(4, code: 312, text: "NO_ROUTE") == .settled(0))
        run.lose()
        #expect(run.settled == ["a": .confirmed, "b": .unknown, "c": .confirmed, "d": .returned(code: 312, text: "NO_ROUTE")])
        #expect(run.tracker.inFlight == 0)
        #expect(run.tracker.next == 1)
        run.lose()
        #expect(run.settlements == 4)
    }

    /// Random writes and answers against a plain dictionary.
    @Test func againstAModel() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<300 {
            var tracker = ConfirmTracker<UInt64>()
            var open: Set<UInt64> = []
            for _ in 0..<80 {
                let last = tracker.next - 1
                switch Int.random(in: 0..<4, using: &random) {
                case 0, 1:
                    let tag = tracker.wrote(tracker.next)
                    open.insert(tag)
                default:
                    guard last > 0 else { continue }
                    let tag = UInt64.random(in: 1...last, using: &random)
                    let multiple = Bool.random(using: &random)
                    let expected = multiple ? open.filter { $0 <= tag } : open.intersection([tag])
                    var settled: Set<UInt64> = []
                    #expect(
                        tracker.acknowledged(tag, multiple: multiple) { ticket, _ in settled.insert(ticket) } == .settled(expected.count)
                    )
                    #expect(settled == expected)
                    open.subtract(expected)
                }
                #expect(tracker.inFlight == open.count)
            }
        }
    }
}
