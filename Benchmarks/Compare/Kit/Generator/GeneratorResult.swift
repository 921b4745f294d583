import FlashSaleKit

/// What a load generator itself costs: `flash-sale` beside `wrk`, both with an idempotency key of its own for each request, against a server that answers a constant.
public struct GeneratorResult: Codable, Equatable, Sendable {
    /// One run of one generator.
    public struct Run: Codable, Equatable, Sendable {
        /// Requests answered.
        public var requests: Int
        /// How long they were sent.
        public var seconds: Double
        /// Processor time of the generator alone, in microseconds.
        public var cpu: Double

        /// Makes a run.
        public init(requests: Int, seconds: Double, cpu: Double) {
            self.requests = requests
            self.seconds = seconds
            self.cpu = cpu
        }

        /// Requests a second.
        public var rate: Double { seconds > 0 ? Double(requests) / seconds : 0 }
        /// Microseconds of processor time a request.
        public var cpuPerRequest: Double { requests > 0 ? cpu / Double(requests) : 0 }
    }

    /// Every run of wrk.
    public var wrk: [Run]
    /// Every run of flash-sale.
    public var flashSale: [Run]

    /// Makes a result.
    public init(wrk: [Run], flashSale: [Run]) {
        self.wrk = wrk
        self.flashSale = flashSale
    }

    /// The ratio that flash-sale must not exceed.
    public static let goal = 1.3

    /// Processor time a request of flash-sale divided by wrk's, both medians; nil where one of them was not measured.
    public var ratio: Double? {
        guard let one = flashSale.map(\.cpuPerRequest).median, let other = wrk.map(\.cpuPerRequest).median, other > 0 else { return nil }
        return one / other
    }

    /// One sentence; nil where one of them was not measured.
    public var line: String? {
        guard let ratio else { return nil }
        func figures(_ runs: [Run]) -> String {
            "\((runs.map(\.cpuPerRequest).median ?? 0).digits(1)) us a request at \((runs.map(\.rate).median ?? 0).digits(0))/s"
        }
        return
            "the load generator against a constant, a key of its own for each request: flash-sale \(figures(flashSale)), wrk \(figures(wrk)): "
            + "\(ratio.digits(2)) x the processor time; goal: at most \(Self.goal.digits(1)) x; reached: \(ratio <= Self.goal ? "yes" : "NO")"
    }

    /// The requests that wrk says it has completed, and the seconds that it took; nil if that is not what the text says.
    static func wrk(_ text: String) -> (requests: Int, seconds: Double)? {
        guard let line = text.split(separator: "\n").first(where: { $0.contains(" requests in ") }) else { return nil }
        let words = line.split(whereSeparator: { $0 == " " || $0 == "," })
        guard words.count > 3, let requests = Int(words[0]), words[3].hasSuffix("s"), let seconds = Double(words[3].dropLast()) else {
            return nil
        }
        return (requests, seconds)
    }
}
