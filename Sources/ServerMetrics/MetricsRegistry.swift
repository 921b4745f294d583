import Synchronization

// Prometheus' text exposition format 0.0.4, of which counters, gauges and histograms are used. swift-metrics is an interface
// without a backend: one behind it would have to do what is done here.

/// All metrics of one server, written out for Prometheus.
///
/// Registering takes a lock, and is done at start; recording takes none. Whoever registers the same name and labels again gets the metric that is there.
/// Labels are bounded: a family that is made with label names keeps its first `capacity` combinations, and counts all others together under `other`.
public final class MetricsRegistry: Sendable {
    /// A label and its value.
    public typealias Label = (name: String, value: String)

    /// One line of a collector: labels and a value.
    public struct Sample: Sendable {
        /// Labels and their values.
        public var labels: [(name: String, value: String)]
        /// The value.
        public var value: Double

        /// Makes a line.
        public init(labels: [(name: String, value: String)] = [], _ value: Double) {
            self.labels = labels
            self.value = value
        }
    }

    /// What a metric is, in Prometheus' words.
    public enum Kind: String, Sendable {
        /// Only grows.
        case counter
        /// Goes up and down.
        case gauge
        /// Counts per range.
        case histogram
    }

    private enum Source {
        case counter(Counter)
        case histogram(Histogram)
        case samples(@Sendable () -> [Sample])
    }

    private struct Family {
        var name: String
        var help: String
        var kind: Kind
        var sources: [(labels: [Label], source: Source)] = []
    }

    private let families = Mutex<[Family]>([])

    /// Makes an empty registry.
    public init() {}

    private static func isSame(_ one: [Label], _ other: [Label]) -> Bool {
        one.elementsEqual(other) { $0.name == $1.name && $0.value == $1.value }
    }

    /// Finds or adds a metric. All registrations of a name must be of one kind.
    private func register<Figure>(
        _ name: String,
        help: String,
        kind: Kind,
        labels: [Label],
        existing: (Source) -> Figure?,
        make: () -> (Figure, Source)
    ) -> Figure {
        precondition(MetricsRegistry.isName(name), "\(name) is no metric name")
        precondition(labels.allSatisfy { MetricsRegistry.isName($0.name) }, "\(name) has a label whose name is none")
        return self.families.withLock { families in
            let index: Int
            if let known = families.firstIndex(where: { $0.name == name }) {
                index = known
            } else {
                families.append(Family(name: name, help: help, kind: kind))
                index = families.count - 1
            }
            precondition(families[index].kind == kind, "\(name) is a \(families[index].kind) already")
            for known in families[index].sources where MetricsRegistry.isSame(known.labels, labels) {
                if let figure = existing(known.source) { return figure }
            }
            let (figure, source) = make()
            families[index].sources.append((labels, source))
            return figure
        }
    }

    /// A counter. Its name should end in `_total`.
    public func counter(_ name: String, help: String, labels: [(name: String, value: String)] = []) -> Counter {
        register(name, help: help, kind: .counter, labels: labels) {
            if case .counter(let counter) = $0 { counter } else { nil }
        } make: {
            let counter = Counter()
            return (counter, .counter(counter))
        }
    }

    /// A histogram; of durations in seconds unless told otherwise.
    public func histogram(
        _ name: String,
        help: String,
        labels: [(name: String, value: String)] = [],
        bounds: [UInt64] = Histogram.latencyBounds,
        scale: Double = 1e-9
    ) -> Histogram {
        register(name, help: help, kind: .histogram, labels: labels) {
            if case .histogram(let histogram) = $0 { histogram } else { nil }
        } make: {
            let histogram = Histogram(bounds: bounds, scale: scale)
            return (histogram, .histogram(histogram))
        }
    }

    /// A gauge that is read when somebody asks for the metrics.
    public func gauge(
        _ name: String,
        help: String,
        labels: [(name: String, value: String)] = [],
        _ read: @escaping @Sendable () -> Double
    ) {
        collector(name, help: help, kind: .gauge, labels: labels) { [Sample(read())] }
    }

    /// Lines of a gauge or counter that are made when somebody asks for the metrics. The closure bounds their number.
    public func collector(
        _ name: String,
        help: String,
        kind: Kind,
        labels: [(name: String, value: String)] = [],
        _ read: @escaping @Sendable () -> [Sample]
    ) {
        register(name, help: help, kind: kind, labels: labels) { _ in
            nil
        } make: {
            ((), .samples(read))
        }
    }

    /// Counters of one name whose labels' values come up at run time.
    public func counters(_ name: String, help: String, labelNames: [String], capacity: Int = 64) -> CounterFamily {
        CounterFamily(labelNames: labelNames, capacity: capacity) { labels in
            self.counter(name, help: help, labels: labels)
        }
    }

    /// Everything, in the text exposition format 0.0.4.
    public func exposition() -> [UInt8] {
        // The closures run outside the lock: one may register, or be slow.
        let families = self.families.withLock { $0 }
        var text = MetricsText()
        for family in families {
            text.family(family.name, help: family.help, kind: family.kind)
            for (labels, source) in family.sources {
                switch source {
                case .counter(let counter): text.sample(family.name, labels, Double(counter.value))
                case .histogram(let histogram): text.histogram(family.name, labels, histogram)
                case .samples(let read):
                    for sample in read() { text.sample(family.name, labels + sample.labels, sample.value) }
                }
            }
        }
        return text.bytes
    }

    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`
    private static func isName(_ name: String) -> Bool {
        guard let first = name.utf8.first, !(0x30...0x39).contains(first) else { return false }
        return name.utf8.allSatisfy { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "_"), UInt8(ascii: ":"): true
            default: false
            }
        }
    }
}

/// Counters of one name with labels whose values come up at run time, at most `capacity` combinations and `other`.
///
/// Looking one up takes a lock; a hot path keeps the counter that it got.
public final class CounterFamily: Sendable {
    private let labelNames: [String]
    private let capacity: Int
    private let make: @Sendable ([(name: String, value: String)]) -> Counter
    private let counters = Mutex<[[String]: Counter]>([:])

    init(labelNames: [String], capacity: Int, make: @escaping @Sendable ([(name: String, value: String)]) -> Counter) {
        self.labelNames = labelNames
        self.capacity = capacity
        self.make = make
    }

    /// The counter with these values, one for each label name; the common `other` beyond the capacity.
    public func with(_ values: String...) -> Counter {
        self.counters.withLock { counters in
            if let counter = counters[values] { return counter }
            let full = counters.count >= capacity || values.count != labelNames.count
            let key = full ? labelNames.map { _ in "other" } : values
            if let counter = counters[key] { return counter }
            let counter = make(Array(zip(labelNames, key)).map { (name: $0.0, value: $0.1) })
            counters[key] = counter
            return counter
        }
    }
}
