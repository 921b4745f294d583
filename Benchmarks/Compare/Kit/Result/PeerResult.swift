public import Foundation
import FlashSaleKit

/// What a comparison found: medians, ratios and verdicts, with every sample that they are made of.
public struct PeerResult: Codable, Equatable, Sendable {
    /// How a run was made.
    public struct Settings: Codable, Equatable, Sendable {
        /// How often everything was measured.
        public var rounds: Int
        /// Seconds of one run.
        public var secondsEach: Double
        /// What the servers of the project were configured with.
        public var configuration: String
        /// Whether only a part of the works was measured.
        public var isPartial: Bool

        /// Makes the settings.
        public init(rounds: Int, secondsEach: Double, configuration: String, isPartial: Bool) {
            self.rounds = rounds
            self.secondsEach = secondsEach
            self.configuration = configuration
            self.isPartial = isPartial
        }
    }

    /// One line of the table.
    public struct Line: Codable, Equatable, Sendable {
        /// What is compared, in words.
        public var title: String
        /// What was done.
        public var work: Work
        /// Which of our sides did it.
        public var side: Side
        /// Our connections.
        public var clients: Int
        /// The peer that our side is compared with.
        public var peer: Side
        /// Connections of the peer.
        public var peerClients: Int
        /// Requests a second, or microseconds a request.
        public var measure: Row.Measure
        /// The peer's median.
        public var peerValue: Double
        /// Our median.
        public var value: Double
        /// Our 99th percentile, in milliseconds.
        public var p99: Double
        /// `value` divided by `peerValue`.
        public var ratio: Double
        /// At least this ratio of rates, at most this of processor time; nil without a goal.
        public var goal: Double?
        /// Whether the goal is reached; nil without a goal.
        public var isReached: Bool?
        /// What the peer does not promise.
        public var lacks: String
    }

    /// Processor time of one side's work by process.
    public struct CPULine: Codable, Equatable, Sendable {
        /// What was done.
        public var work: Work
        /// Who did it.
        public var side: Side
        /// Connections.
        public var clients: Int
        /// Microseconds a request.
        public var byGroup: [String: Double]
        /// All servers together.
        public var servers: Double
    }

    /// How long an accepted order's message took from the outbox to the broker's confirm, at half of the rate just sustained.
    public struct Relay: Codable, Equatable, Sendable {
        /// Orders a second.
        public var rate: Double
        /// The rate just sustained.
        public var fullRate: Double
        /// Milliseconds, at most: bounds of the histogram.
        public var p50: Double
        /// Milliseconds, at most.
        public var p99: Double

        /// The goal, in milliseconds.
        public static let goal = 20.0
        /// At 40 % of the full rate or more: a relay that was asked for less has not shown it.
        public var isReached: Bool { p99 < Self.goal && rate >= 0.4 * fullRate }
    }

    /// When the comparison began.
    public var started: Date
    /// The machine that the comparison ran on.
    public var machine: Machine
    /// How the comparison was made.
    public var settings: Settings
    /// The table.
    public var lines: [Line]
    /// Processor time of each side's work.
    public var cpu: [CPULine]
    /// The relay's delay; nil where it was not measured.
    public var relay: Relay?
    /// Processor time of what has nothing to do with the comparison, in percent of the machine while something was measured.
    public var otherWork: Double
    /// Sides that could not be measured on this machine, and why.
    public var missing: [String]
    /// Every run.
    public var samples: [Sample]
    /// What was lost under load; empty where nothing was killed.
    public var losses: [Loss]
    /// What the load generator itself costs; nil where it was not measured.
    public var generator: GeneratorResult?
    /// What a request costs with many products and many servers; nil where it was not measured.
    public var growth: GrowthResult?

    /// Sums up.
    public init(
        started: Date,
        machine: Machine,
        settings: Settings,
        samples: [Sample],
        relays: [Relay],
        missing: [String] = [],
        losses: [Loss] = []
    ) {
        self.started = started
        self.machine = machine
        self.settings = settings
        self.samples = samples
        self.missing = missing
        self.losses = losses
        func of(_ work: Work, _ side: Side, _ clients: Int) -> [Sample] {
            samples.filter { $0.work == work && $0.side == side && $0.clients == clients }
        }
        lines = Row.all.compactMap { row in
            let ours = of(row.work, row.side, row.clients)
            let theirs = of(row.peerWork, row.peer, row.peerClients)
            let value: (Sample) -> Double = row.measure == .rate ? { $0.rate } : { $0.cpuPerRequest }
            guard let one = ours.map(value).median, let other = theirs.map(value).median, other > 0 else { return nil }
            let ratio = one / other
            return Line(
                title: row.title,
                work: row.work,
                side: row.side,
                clients: row.clients,
                peer: row.peer,
                peerClients: row.peerClients,
                measure: row.measure,
                peerValue: other,
                value: one,
                p99: ours.map(\.p99).median ?? 0,
                ratio: ratio,
                goal: row.goal,
                isReached: row.goal.map { row.measure == .rate ? ratio >= $0 : ratio <= $0 },
                lacks: row.peer.lacks
            )
        }
        cpu = Work.allCases.flatMap { work in
            Side.allCases.flatMap { side in
                Set(samples.filter { $0.work == work && $0.side == side }.map(\.clients)).sorted().map { clients in
                    Self.cpuLine(of(work, side, clients), work, side, clients)
                }
            }
        }
        relay =
            relays.isEmpty
            ? nil
            : Relay(
                rate: relays.map(\.rate).median ?? 0,
                fullRate: relays.map(\.fullRate).median ?? 0,
                p50: relays.map(\.p50).median ?? 0,
                p99: relays.map(\.p99).median ?? 0
            )
        let measured = samples.map(\.seconds).reduce(0, +) * 1e6 * Double(max(1, machine.cores))
        otherWork = measured > 0 ? samples.map { $0.cpu[Group.other] ?? 0 }.reduce(0, +) / measured * 100 : 0
    }

    private static func cpuLine(_ runs: [Sample], _ work: Work, _ side: Side, _ clients: Int) -> CPULine {
        let worked = Double(max(1, runs.map(\.worked).reduce(0, +)))
        var byGroup: [String: Double] = [:]
        for group in Group.all { byGroup[group] = runs.map { $0.cpu[group] ?? 0 }.reduce(0, +) / worked }
        let servers = Group.servers.map { byGroup[$0] ?? 0 }.reduce(0, +)
        return CPULine(work: work, side: side, clients: clients, byGroup: byGroup, servers: servers)
    }

    /// What speaks against relying on the figures, in words.
    ///
    /// The load average before the run is no such thing: after the build of this very program it is high on a machine that does nothing else.
    public var doubts: [String] {
        var doubts: [String] = []
        if otherWork > 5 {
            doubts.append(
                "\(otherWork.digits(1)) % of this machine went to other work while it was measured: neither the figures nor the ratios can be relied on"
            )
        }
        if settings.rounds < 3 { doubts.append("\(settings.rounds) rounds: a median needs at least three") }
        if settings.secondsEach < 3 { doubts.append("runs of \(settings.secondsEach.digits(0)) s show that it works, not how fast it is") }
        return doubts
    }

    /// Median requests a second of one side; nil where it was not measured.
    func rate(_ work: Work, _ side: Side, _ clients: Int) -> Double? {
        samples.filter { $0.work == work && $0.side == side && $0.clients == clients }.map(\.rate).median
    }

    /// Everything as JSON, keys sorted, so that two runs can be compared line by line.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        encoder.dateEncodingStrategy = .iso8601
        return try encoder.encode(self) + Data("\n".utf8)
    }

    /// Reads what `json` wrote.
    public static func read(_ data: Data) throws -> PeerResult {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .iso8601
        return try decoder.decode(PeerResult.self, from: data)
    }
}
