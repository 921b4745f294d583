import SeededRandom

/// When orders are meant to arrive, whatever the servers do: a rate over time, and bursts.
///
/// The arithmetic is that of the expected number of arrivals up to a moment, which only grows: the rate's integral, a jump at each burst. An arrival process in that
/// number, with steps of 1 or exponential ones, is one in time through the inverse. Rates go in straight lines between the stages' ends, so pieces of the inverse are
/// roots of a quadratic. Bounds: 1,000 stages and bursts; 1,000,000 arrivals a second; a day.
public struct ArrivalSchedule: Equatable, Sendable {
    /// A stretch of time in which the rate goes from one value to another in a straight line.
    struct Piece: Equatable {
        /// Where it begins, in seconds and in arrivals.
        var start: Double
        var before: Double
        var length: Double
        var from: Double
        var to: Double
        /// Arrivals at its very beginning, all at once.
        var burst: Double
    }

    private(set) var pieces: [Piece]
    /// The bursts in the order of their moments.
    let bursts: [Burst]
    /// The schedule as the options of `flash-sale` write it, so that it can be run again.
    let words: String
    /// When the last stage ends; nil for a rate that never ends.
    public let length: Duration?
    /// Arrivals a second beyond the last stage, for a sale that must go on.
    let lastRate: Double

    /// Arrivals that come at one moment, in seconds.
    struct Burst: Equatable {
        var at: Double
        var count: Int
    }

    /// - Parameters:
    ///   - rate: arrivals a second at the beginning; without stages, for ever.
    ///   - stages: how long each takes and the rate at its end. A stage of no length is a step.
    ///   - bursts: arrivals that come at one moment, beside the rate's.
    init(rate: Double, stages: [(length: Double, rate: Double)], bursts: [(at: Double, count: Double)]) {
        var lines: [(start: Double, length: Double, from: Double, to: Double)] = []
        var time = 0.0
        var last = rate
        for stage in stages {
            if stage.length > 0 { lines.append((time, stage.length, last, stage.rate)) }
            time += stage.length
            last = stage.rate
        }
        self.bursts = bursts.sorted { $0.at < $1.at }.map { Burst(at: $0.at, count: Int($0.count)) }
        var words: [String] = rate > 0 || stages.isEmpty ? ["--rate \(rate.plain)/s"] : []
        if !stages.isEmpty { words.append("--stages " + stages.map { "\($0.length.plain)s:\($0.rate.plain)" }.joined(separator: ",")) }
        words += self.bursts.map { "--burst \($0.count)@\($0.at.plain)s" }
        self.words = words.joined(separator: " ")
        length = stages.isEmpty ? nil : .seconds(time)
        lastRate = last
        // The rate goes on behind the last stage: a burst may come there.
        lines.append((time, .infinity, last, last))
        var pieces: [Piece] = []
        var before = 0.0
        var waiting = bursts.sorted { $0.at < $1.at }[...]
        for line in lines {
            var start = line.start
            let end = line.start + line.length
            func rate(_ time: Double) -> Double {
                line.length.isInfinite ? line.from : line.from + (line.to - line.from) * (time - line.start) / line.length
            }
            func add(until end: Double, burst: Double) {
                let piece = Piece(
                    start: start,
                    before: before,
                    length: end - start,
                    from: rate(start),
                    to: rate(min(end, line.start + line.length)),
                    burst: burst
                )
                pieces.append(piece)
                if end.isFinite { before += burst + (piece.from + piece.to) / 2 * piece.length }
                start = end
            }
            var burst = 0.0
            while let next = waiting.first, next.at < end {
                if next.at > start { add(until: next.at, burst: burst); burst = 0 }
                burst += next.count
                waiting = waiting.dropFirst()
            }
            add(until: end, burst: burst)
        }
        self.pieces = pieces
    }

    /// A rate that never changes.
    public init(_ rate: ArrivalRate) {
        self.init(rate: rate.perSecond, stages: [], bursts: [])
    }

    /// Reads `10s:2000,30s:20000` (in ten seconds to 2,000 a second, then in thirty to 20,000), and bursts such as `50000@12s`.
    /// - Parameter rate: where the first stage begins; nil for 0.
    /// - Throws: `PlanError` that names the part and the expected form.
    public init(rate: ArrivalRate?, stages: String?, bursts: [String]) throws(PlanError) {
        var read: [(length: Double, rate: Double)] = []
        for part in stages?.split(separator: ",", omittingEmptySubsequences: false) ?? [] {
            let halves = part.split(separator: ":", omittingEmptySubsequences: false)
            guard halves.count == 2, halves[1] != "0" else {
                guard halves.count == 2 else { throw PlanError("'\(part)' is no stage: write 10s:2000, a length and the rate at its end") }
                read.append((try Duration(span: String(halves[0])).inSeconds, 0))
                continue
            }
            read.append((try Duration(span: String(halves[0])).inSeconds, try ArrivalRate(String(halves[1])).perSecond))
        }
        var counts: [(at: Double, count: Double)] = []
        for burst in bursts {
            let halves = burst.split(separator: "@", omittingEmptySubsequences: false)
            guard halves.count == 2, let count = Int(halves[0]), (1...10_000_000).contains(count) else {
                throw PlanError("'\(burst)' is no burst: write 50000@12s, at most 10000000 orders and when they come")
            }
            counts.append((try Duration(span: String(halves[1])).inSeconds, Double(count)))
        }
        guard read.count + counts.count <= 1_000 else { throw PlanError("at most 1,000 stages and bursts") }
        guard rate != nil || !read.isEmpty || !counts.isEmpty else { throw PlanError("an open loop needs a rate, stages or a burst") }
        if read.isEmpty, rate == nil {
            // Bursts alone: the sale ends behind the last of them.
            read = [(max(0.001, (counts.map(\.at).max() ?? 0) + 0.001), 0)]
        }
        guard read.reduce(0, { $0 + $1.length }) <= 86_400 else { throw PlanError("--stages last longer than a day") }
        guard read.isEmpty || read.contains(where: { $0.length > 0 }) else { throw PlanError("--stages have no length") }
        // From 0 to 0 nobody comes.
        let sends = (rate?.perSecond ?? 0) > 0 || read.contains { $0.rate > 0 }
        guard sends || !counts.isEmpty else { throw PlanError("--stages send nothing: every rate is 0") }
        let end = read.reduce(0) { $0 + $1.length }
        guard read.isEmpty || counts.allSatisfy({ $0.at <= end }) else { throw PlanError("a burst comes behind the last stage") }
        self.init(rate: rate?.perSecond ?? 0, stages: read, bursts: counts)
    }

    /// The rate alone.
    var withoutBursts: ArrivalSchedule {
        var schedule = self
        var before = 0.0
        for index in pieces.indices {
            schedule.pieces[index].before = before
            schedule.pieces[index].burst = 0
            let piece = pieces[index]
            if piece.length.isFinite { before += (piece.from + piece.to) / 2 * piece.length }
        }
        return schedule
    }

    /// Arrivals expected until a moment, in seconds.
    func arrivals(until time: Double) -> Double {
        guard let piece = pieces.last(where: { $0.start <= time }) else { return 0 }
        let elapsed = min(time - piece.start, piece.length)
        let slope = piece.length.isInfinite ? 0 : (piece.to - piece.from) / piece.length
        return piece.before + piece.burst + piece.from * elapsed + slope * elapsed * elapsed / 2
    }

    /// Arrivals a second meant at a moment, bursts left out.
    public func rate(at time: Double) -> Double {
        guard let piece = pieces.last(where: { $0.start <= time }) else { return 0 }
        return piece.length.isInfinite ? piece.from : piece.from + (piece.to - piece.from) * min(1, (time - piece.start) / piece.length)
    }

    /// The moment at which so many arrivals are expected, in seconds; nil if there never are so many.
    /// - Parameter piece: the piece to begin at, moved on: callers ask for growing numbers.
    func moment(of number: Double, from index: inout Int) -> Double? {
        while index < pieces.count {
            let piece = pieces[index]
            let missing = number - piece.before - piece.burst
            if missing <= 0 { return piece.start }
            let slope = piece.length.isInfinite ? 0 : (piece.to - piece.from) / piece.length
            let total = piece.length.isInfinite ? (piece.from > 0 ? .infinity : 0) : (piece.from + piece.to) / 2 * piece.length
            if missing <= total {
                if abs(slope) < 1e-9 { return piece.start + missing / piece.from }
                // The root that grows with the number, in the form that loses no digits where the rate begins at 0.
                let root = max(0, piece.from * piece.from + 2 * slope * missing).squareRoot()
                return piece.start + min(piece.length, 2 * missing / (piece.from + root))
            }
            index += 1
        }
        return nil
    }
}

/// How arrivals are spread over the expected number.
public enum ArrivalProcess: String, Sendable, CaseIterable {
    /// Each is independent of the others, as buyers are.
    case poisson
    /// One after the other at even steps, as most load testers send.
    case even
}

/// The arrivals of one of several generators that share a schedule. Chance spreads those of the rate alone: a burst has as many as were asked for.
struct ArrivalSequence {
    private let schedule: ArrivalSchedule
    private let process: ArrivalProcess
    private let share: Double
    private var number: Double
    private var piece = 0
    /// The rate's next arrival, where `isDrawn`; nil when none follows.
    private var steady: Double?
    private var isDrawn = false
    /// What is left of the bursts that this generator has a part of.
    private var bursts: ArraySlice<ArrivalSchedule.Burst>

    /// - Parameters:
    ///   - index: which generator, from 0.
    ///   - count: how many share the schedule.
    init(_ schedule: ArrivalSchedule, process: ArrivalProcess, index: Int, of count: Int) {
        self.schedule = schedule.withoutBursts
        self.process = process
        share = Double(count)
        number = process == .even ? Double(index) - Double(count) + 1 : 0
        // The first ones take what does not divide evenly.
        bursts =
            schedule.bursts.map {
                ArrivalSchedule.Burst(at: $0.at, count: $0.count / count + (index < $0.count % count ? 1 : 0))
            }
            .filter { $0.count > 0 }[...]
    }

    /// The next arrival in seconds since the opening; nil if none follows within the schedule's length.
    mutating func next(using generator: inout SplitMix64) -> Double? {
        if !isDrawn {
            steady = draw(using: &generator)
            isDrawn = true
        }
        if let burst = bursts.first, burst.at <= steady ?? .infinity {
            if burst.count > 1 { bursts[bursts.startIndex].count -= 1 } else { bursts.removeFirst() }
            return burst.at
        }
        isDrawn = false
        return steady
    }

    /// The rate's next arrival.
    private mutating func draw(using generator: inout SplitMix64) -> Double? {
        switch process {
        case .poisson: number += share * generator.interarrival(perSecond: 1)
        case .even: number += share
        }
        guard let moment = schedule.moment(of: number, from: &piece) else { return nil }
        if let length = schedule.length, moment > length.inSeconds { return nil }
        return moment
    }
}
