import Testing

@testable import CompareKit

@Suite("Processor time")
struct ProcessTimesTests {
    @Test func aProcessIsReadBehindItsName() throws {
        let line = "4711 (a) b (c) S 17 4711 4711 0 -1 4194560 1 2 3 4 50 6 7 8 20 0 1 0 99 100 200"
        let entry = try #require(ProcessTimes.Entry(stat: line))
        #expect(entry == ProcessTimes.Entry(parent: 17, own: 56, ended: 15))
        #expect(ProcessTimes.Entry(stat: "4711 (short) S 17") == nil)
        #expect(ProcessTimes.Entry(stat: "nonsense") == nil)
    }

    @Test func theMachinesTimeIsUserNiceAndSystem() {
        #expect(ProcessTimes.busyTicks("cpu  10 20 30 400 5\ncpu0 1 2 3 4 5\n") == 60)
        #expect(ProcessTimes.busyTicks("intr 1 2 3") == nil)
    }

    /// 1 (root of the machine) > 10 (postmaster) > 11 (backend); 1 > 20 (us) > 21 (peer) > 22 (its worker); 1 > 30 (a stranger).
    private let table: ProcessTimes = {
        var times = ProcessTimes()
        times.busy = 1_000
        times.processes = [
            1: .init(parent: 0, own: 5, ended: 400), 10: .init(parent: 1, own: 10, ended: 100), 11: .init(parent: 10, own: 20, ended: 7),
            20: .init(parent: 1, own: 40, ended: 3), 21: .init(parent: 20, own: 80, ended: 0), 22: .init(parent: 21, own: 160, ended: 0),
            30: .init(parent: 1, own: 320, ended: 0),
        ]
        return times
    }()

    @Test func aProcessBelongsToTheNearestRootAboveIt() {
        let (groups, other) = table.ticks([10: "postgres", 20: "load", 21: "peer"])
        // The backends that have ended are the postmaster's; what a backend waited for is nobody's.
        #expect(groups == ["postgres": 130, "load": 43, "peer": 240])
        #expect(other == 1_000 - 413)
    }

    @Test func whatIsUsedBetweenTwoMoments() {
        var later = table
        later.busy += 100
        later.processes[22]?.own += 30
        later.processes[30]?.own += 50
        let shares = ProcessTimes.between(table, later, roots: [10: "postgres", 21: "peer"], ticksPerSecond: 100)
        #expect(shares.byGroup == ["postgres": 0, "peer": 300_000])
        #expect(shares.other == 700_000)
    }

    @Test func aCircleOfParentsEnds() {
        var times = ProcessTimes()
        times.processes = [1: .init(parent: 2, own: 1, ended: 0), 2: .init(parent: 1, own: 1, ended: 0)]
        #expect(times.ticks([9: "x"]).byGroup.isEmpty)
    }

    @Test func thisProcessIsThere() {
        let now = ProcessTimes.now()
        #expect(now.busy > 0)
        #expect(now.processes.count > 1)
        #expect(ProcessTimes.ticksPerSecond > 0)
    }
}

@Suite("The machine")
struct MachineTests {
    @Test func itsKindIsAFoldersName() {
        let machine = Machine(processor: "AMD EPYC(tm) 7B13 @ 2.4", cores: 2, memory: 8 << 30, kernel: "Linux 6.1", loadAverage: 0.1)
        #expect(machine.kind == "amd-epyc-tm-7b13-2-4-2-cores")
        #expect(machine.line == "2 cores (AMD EPYC(tm) 7B13 @ 2.4), 8 GiB, Linux 6.1")
    }

    @Test func theProcessorsName() {
        #expect(Machine.processor("processor\t: 0\nmodel name\t: X: 1\nmodel name\t: Y\n") == "X: 1")
        #expect(Machine.processor("Hardware: z") == "unknown processor")
    }
}
