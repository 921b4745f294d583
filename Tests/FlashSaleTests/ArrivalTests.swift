import SeededRandom
import Testing

@testable import FlashSaleKit

@Suite("When orders arrive")
struct ArrivalTests {
    private func schedule(_ rate: String? = nil, _ stages: String? = nil, _ bursts: [String] = []) throws -> ArrivalSchedule {
        try ArrivalSchedule(rate: try rate.map { try ArrivalRate($0) }, stages: stages, bursts: bursts)
    }

    /// All arrivals of a schedule that ends, in seconds.
    private func arrivals(_ schedule: ArrivalSchedule, _ process: ArrivalProcess, of count: Int = 1, seed: UInt64 = 1) -> [Double] {
        (0..<count).flatMap { index in
            var sequence = ArrivalSequence(schedule, process: process, index: index, of: count)
            var generator = SplitMix64(seed: seed + UInt64(index))
            var times: [Double] = []
            while times.count < 100_000, let time = sequence.next(using: &generator) { times.append(time) }
            return times
        }
    }

    @Test func aConstantRateComesAtEvenSteps() throws {
        var sequence = ArrivalSequence(try schedule("50/s"), process: .even, index: 0, of: 1)
        var generator = SplitMix64(seed: 1)
        for step in 1...100 {
            let next = sequence.next(using: &generator)
            let time = try #require(next)
            #expect(abs(time - Double(step) * 0.02) < 1e-9)
        }
    }

    @Test func stagesRampFromOneRateToTheNext() throws {
        let schedule = try schedule(nil, "10s:100,20s:100,10s:0", [])
        #expect(schedule.length == .seconds(40))
        #expect([0, 5, 10, 20, 30, 35, 40].map { schedule.rate(at: $0) } == [0, 50, 100, 100, 100, 50, 0])
        // Triangles of 500 about a rectangle of 2,000.
        #expect([5, 10, 30, 35, 40, 99].map { schedule.arrivals(until: $0) } == [125, 500, 2500, 2875, 3000, 3000])
        for process in ArrivalProcess.allCases {
            let times = arrivals(schedule, process)
            #expect(abs(times.count - 3000) < (process == .even ? 2 : 250), "\(process): \(times.count)")
            #expect(times == times.sorted() && (times.last ?? 99) <= 40)
            #expect(abs(times.count { $0 < 10 } - 500) < (process == .even ? 2 : 110))
        }
    }

    @Test func aStepIsAStageWithoutLength() throws {
        let steps = try schedule("10/s", "10s:10,0s:1000,1s:1000")
        #expect(steps.rate(at: 9.9) == 10 && steps.rate(at: 10.5) == 1000 && steps.arrivals(until: 11) == 1100)
    }

    @Test func aBurstComesAtOnce() throws {
        let schedule = try schedule("10/s", "20s:10", ["500@5s", "70@5s", "3@20s"])
        let times = arrivals(schedule, .even)
        #expect(times.count { $0 == 5 } >= 569 && times.count { $0 == 5 } <= 571, "\(times.count { $0 == 5 })")
        #expect(times.count >= 770 && times.count <= 774)
        #expect(times == times.sorted())
        let alone = arrivals(try self.schedule(nil, nil, ["40@2s", "2@1s"]), .even)
        #expect(alone == [1, 1] + Array(repeating: 2, count: 40))
    }

    /// Chance spreads the rate's arrivals, not the burst's: this many means this many, however many generators share them.
    @Test(arguments: ArrivalProcess.allCases, [1, 3]) func aBurstIsExact(process: ArrivalProcess, generators: Int) throws {
        for seed in 1...20 {
            let alone = arrivals(try schedule(nil, nil, ["400@0s"]), process, of: generators, seed: UInt64(seed) * 10)
            #expect(alone.count == 400)
            let beside = arrivals(try schedule("10/s", "4s:10", ["400@2s"]), process, of: generators, seed: UInt64(seed) * 10)
            #expect(beside.count { $0 == 2 } == 400 || process == .even)
            #expect(abs(beside.count - 440) < 40)
        }
    }

    @Test func aScheduleSaysHowToRunItAgain() throws {
        #expect(try schedule("10/s", "0s:80,3s:80.5", ["5@1s"]).words == "--rate 10/s --stages 0s:80,3s:80.5 --burst 5@1s")
        #expect(try schedule("50/s").words == "--rate 50/s")
    }

    @Test func momentsAreTheInverseOfTheNumbers() throws {
        let schedule = try schedule("3/s", "7s:900,5s:20,0s:400,4s:400", ["900@6s"])
        var piece = 0
        for number in stride(from: 0.5, to: schedule.arrivals(until: 16), by: 7.3) {
            let moment = schedule.moment(of: number, from: &piece)
            let time = try #require(moment)
            // At a burst the number jumps over what was asked for.
            let reached = schedule.arrivals(until: time + 1e-9)
            #expect(reached >= number - 1e-3 && (time == 6 || reached < number + 1e-3), "\(number) at \(time): \(reached)")
        }
    }

    @Test func severalGeneratorsShareTheSchedule() throws {
        let schedule = try schedule(nil, "4s:500,0s:800,2s:800")
        let one = arrivals(schedule, .even)
        let three = arrivals(schedule, .even, of: 3).sorted()
        #expect(abs(one.count - three.count) <= 3)
        for (time, other) in zip(one, three) { #expect(abs(time - other) < 0.01) }
        let poisson = arrivals(schedule, .poisson, of: 3)
        #expect(abs(poisson.count - 2600) < 260)
    }

    @Test(arguments: [
        "", "10s", "10s:", ":5", "10:5", "10s:5;", "10s:5,", "10s:-5", "1s:5,2000m:7", "0s:5", "10s:0x", "10s:1:2",
    ])
    func noStages(text: String) {
        #expect(throws: PlanError.self) { try ArrivalSchedule(rate: nil, stages: text, bursts: []) }
    }

    @Test(arguments: ["", "500", "@5s", "0@5s", "-5@1s", "5@5", "99999999@1s"])
    func noBursts(text: String) {
        #expect(throws: PlanError.self) { try ArrivalSchedule(rate: nil, stages: nil, bursts: [text]) }
    }

    @Test func anOpenLoopNeedsSomething() {
        #expect(throws: PlanError.self) { try ArrivalSchedule(rate: nil, stages: "10s:5", bursts: ["5@11s"]) }
        #expect(throws: PlanError.self) { try ArrivalSchedule(rate: nil, stages: nil, bursts: []) }
    }
}
