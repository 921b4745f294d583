/// Keeps units for every part of the story.
///
/// Twenty thousand units at the machine's own pace last two or three seconds; an outage together with the breaker's
/// way back lasts ten. Without a bound the last unit would be gone while Redis is still down, and the sale would prove nothing
/// about its return. So each stage of the sale gets a share of the units. Half of a share is sold at the machine's own
/// pace, which is where throughput is measured; the other half is spread over the time the stage is expected to take.
/// After the last outage there is no bound: the last units and the sold-out rush go at the machine's own pace.
///
/// Invariant: as long as a stage is not over, the rate falls with the units that its share still holds, so the units
/// kept for later stages are touched only by `floor`, the trickle that a half-open breaker needs to see calls at all.
/// The arithmetic never ends a stage: only the outage's real course does.
public struct UnitBudget: Equatable, Sendable {
    /// Where in the story the sale is. The number counts the outages.
    public enum Stage: Equatable, Sendable {
        /// Before that outage begins.
        case approaching(Int)
        /// The server is away.
        case down(Int)
        /// The server is back, the system is not yet what it was.
        case recovering(Int)
        /// All outages are over.
        case open
    }

    /// How fast orders may be sent.
    public enum Limit: Equatable, Sendable {
        /// As fast as answers come.
        case ownPace
        /// At most so many new orders a second.
        case perSecond(Double)
    }

    /// Orders a second that are always allowed.
    public static let floor = 20.0
    /// What a breaker needs from the server's return to CLOSED: its own wait in OPEN, and its probes.
    public static let recovery = Duration.seconds(7)

    private struct Share: Equatable {
        /// Sold units, as a fraction, at which the stage's own pace begins and at which the share is used up.
        var from: Double
        var to: Double
    }

    private let units: Int
    private let disruptions: [Disruption]
    private let approach: [Share]
    private let outage: [Share]

    /// - Parameters:
    ///   - units: units on sale.
    ///   - disruptions: in the order in which they begin.
    public init(units: Int, disruptions: [Disruption]) {
        self.units = units
        self.disruptions = disruptions
        // Marks in order: begin, (return, if it is given as a part of the units), recovered, begin, …, everything sold.
        // What is not given is spread evenly between its neighbours.
        var marks: [Double?] = []
        var places: [(begin: Int, recovered: Int)] = []
        for disruption in disruptions {
            let begin = marks.count
            if case .sold(let part) = disruption.start { marks.append(part) } else { marks.append(nil) }
            if case .at(.sold(let part)) = disruption.end { marks.append(part) }
            places.append((begin, marks.count))
            marks.append(nil)
        }
        marks.append(1)
        let filled = Self.spread(marks)
        var approach: [Share] = []
        var outage: [Share] = []
        var previous = 0.0
        for place in places {
            approach.append(Share(from: previous, to: filled[place.begin]))
            outage.append(Share(from: filled[place.recovered - 1], to: filled[place.recovered]))
            previous = filled[place.recovered]
        }
        self.approach = approach
        self.outage = outage
    }

    private static func spread(_ marks: [Double?]) -> [Double] {
        var result: [Double] = []
        var last = 0.0
        for (index, mark) in marks.enumerated() {
            if let mark {
                last = max(last, mark)
            } else if let next = marks[index...].firstIndex(where: { $0 != nil }), let value = marks[next] {
                last += max(0, value - last) / Double(next - index + 1)
            }
            result.append(last)
        }
        return result
    }

    /// The bound on new orders now.
    /// - Parameters:
    ///   - sold: units confirmed to buyers so far.
    ///   - elapsed: since the sale opened.
    ///   - sinceStage: since this stage began.
    public func limit(in stage: Stage, sold: Int, elapsed: Duration, sinceStage: Duration) -> Limit {
        let share: Share
        let left: Duration
        switch stage {
        case .open:
            return .ownPace
        case .approaching(let index):
            // A beginning given as a part of the units comes by selling.
            guard disruptions.indices.contains(index), case .elapsed(let begin) = disruptions[index].start else { return .ownPace }
            share = approach[index]
            left = begin - elapsed
        case .down(let index):
            guard disruptions.indices.contains(index) else { return .ownPace }
            share = outage[index]
            switch disruptions[index].end {
            case .at(.sold): return .ownPace
            case .at(.elapsed(let end)): left = end - elapsed + Self.recovery
            case .after(let length): left = length - sinceStage + Self.recovery
            }
        case .recovering(let index):
            guard disruptions.indices.contains(index) else { return .ownPace }
            share = outage[index]
            left = Self.recovery - sinceStage
        }
        let soldFraction = Double(sold) / Double(max(units, 1))
        if soldFraction < (share.from + share.to) / 2 { return .ownPace }
        let unitsLeft = (share.to - soldFraction) * Double(units)
        return .perSecond(max(Self.floor, unitsLeft / max(left.inSeconds, 2)))
    }
}
