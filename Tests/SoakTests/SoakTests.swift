import FlashSaleKit
import Foundation
import Testing

@testable import SoakKit

@Suite("What a soak plans")
struct SoakPlanTests {
    @Test func anOutageAMinuteAndRestAtTheEnd() throws {
        let usual = try SoakPlan().disruptions()
        #expect(usual.count == 9)
        #expect(usual.map(\.server) == ["redis", "postgres", "rabbitmq", "redis", "redis", "postgres", "rabbitmq", "redis", "redis"])
        #expect(usual.first?.start == .elapsed(.seconds(20)))
        #expect(usual.last?.start == .elapsed(.seconds(500)))
        // 20, 80, …, 500 s; the next, at 560 s, would begin in the last tenth.
        #expect(try SoakPlan(seconds: 20, outageEvery: 10).disruptions().map(\.start) == [.elapsed(.seconds(3)), .elapsed(.seconds(13))])
    }

    @Test(arguments: ["seconds", "percent", "outage", "peak", "rate"]) func whatIsOutOfRangeIsNamed(_ what: String) {
        let error = #expect(throws: PlanError.self) {
            switch what {
            case "seconds": _ = try SoakPlan(seconds: 9)
            case "percent": _ = try SoakPlan(percent: 101)
            case "outage": _ = try SoakPlan(outageEvery: 9)
            case "peak": _ = try SoakPlan(peakSeconds: 61)
            default: _ = try SoakPlan(rate: 0)
            }
        }
        #expect(error?.description.contains(what == "outage" ? "--outage-every" : "--\(what)") == true)
    }
}

@Suite("What a soak makes of a server")
struct ServerVerdictTests {
    private static let mebibyte = 1_048_576

    private func sample(_ seconds: Double, _ mebibytes: Int, descriptors: Int = 40, pid: Int = 7) -> ServerSample {
        ServerSample(server: "order-1", pid: pid, seconds: seconds, memory: mebibytes * Self.mebibyte, descriptors: descriptors)
    }

    private func verdict(after: Int = 40, pid: Int = 7, _ memory: (Int) -> Int) -> ServerVerdict {
        ServerVerdict(
            (0..<100).map { sample(Double($0), memory($0)) },
            before: sample(0, 30),
            after: sample(0, memory(99), descriptors: after, pid: pid),
            seconds: 100
        )
    }

    @Test func memoryThatFillsAndStaysIsFlat() {
        let flat = verdict { min(60, 30 + $0 * 2) }
        #expect(flat.findings.isEmpty, "\(flat.findings)")
        #expect(flat.late == 60 * Self.mebibyte)
        #expect(flat.peak == 60 * Self.mebibyte)
        // What is high for a moment, as during an outage, is no growth.
        #expect(verdict { $0 == 90 ? 120 : 60 }.findings.isEmpty)
    }

    @Test func memoryThatGrowsIsFound() {
        #expect(verdict { 50 + $0 / 4 }.findings == ["order-1: memory grew from 57.0 to 72.0 MiB"])
        // 8 MiB are the allocator's, and a tenth of what is there.
        #expect(verdict { $0 < 50 ? 50 : 58 }.findings.isEmpty)
        #expect(verdict { $0 < 50 ? 50 : 59 }.findings == ["order-1: memory grew from 50.0 to 59.0 MiB"])
        #expect(verdict { $0 < 50 ? 100 : 110 }.findings.isEmpty)
        // In a short time pools and caches still fill.
        func short(_ late: Int) -> ServerVerdict {
            let samples = (0..<20).map { sample(Double($0), $0 < 10 ? 50 : late) }
            return ServerVerdict(samples, before: sample(0, 30), after: sample(0, late), seconds: 20)
        }
        #expect(short(82).findings.isEmpty)
        #expect(short(83).findings == ["order-1: memory grew from 50.0 to 83.0 MiB"])
    }

    @Test func tooMuchMemoryIsFound() {
        #expect(verdict { $0 == 70 ? 151 : 60 }.findings == ["order-1: 151.0 MiB of memory, at most 150.0"])
    }

    @Test func descriptorsThatStayAreFound() {
        #expect(verdict(after: 48) { _ in 60 }.findings.isEmpty)
        #expect(verdict(after: 49) { _ in 60 }.findings == ["order-1: 49 descriptors open at rest, 40 before the load"])
    }

    @Test func anotherProcessIsNoProofOfAnything() {
        #expect(verdict(pid: 8) { _ in 60 }.findings == ["order-1: its process ended and another began"])
        let few = ServerVerdict([sample(1, 40)], before: sample(0, 30), after: sample(0, 40), seconds: 100)
        #expect(few.findings == ["order-1: too few looks at its memory: 1"])
    }

    @Test func memoryIsReadFromTheSystem() throws {
        #expect(ServerSample.memory(status: "Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t   51200 kB\nThreads:\t4\n") == 51_200 * 1_024)
        #expect(ServerSample.memory(status: "Name:\tx\n") == nil)
        #expect(ServerSample.memory(status: "VmRSS:\t9223372036854775807 kB\n") == nil)
        let own = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        #expect(try #require(ServerSample.memory(status: own)) > Self.mebibyte)
    }
}
