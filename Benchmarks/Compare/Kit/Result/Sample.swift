import FlashSaleKit

/// What is done, whoever does it.
public enum Work: String, Codable, Sendable, CaseIterable {
    /// A decrease of a product that has nothing left.
    case soldOut = "sold-out"
    /// A decrease that survives a crash when it is answered.
    case durable
    /// A decrease as above, while Redis is down.
    case direct
    /// An order from the request to CONFIRMED.
    case order
    /// An order that is accepted with a promise, to be decided later.
    case accepted
    /// An accepted order, until it is decided.
    case drained
    /// An order of a product that has nothing left.
    case rejected
}

/// One run: one server, one kind of work, a few seconds.
public struct Sample: Codable, Equatable, Sendable {
    /// What was done.
    public var work: Work
    /// Who did it.
    public var side: Side
    /// Connections.
    public var clients: Int
    /// The round, from 1.
    public var round: Int
    /// Requests answered in time.
    public var requests: Int
    /// How long it was measured, in seconds.
    public var seconds: Double
    /// The median latency, in milliseconds.
    public var p50: Double
    /// The 99th percentile of the latencies, in milliseconds; 0 where the tool does not say.
    public var p99: Double
    /// Processor time of the run by group of processes, in microseconds.
    public var cpu: [String: Double]
    /// Requests that `cpu` was used for, including those that were answered after the time was over.
    public var worked: Int

    /// Makes a sample.
    public init(
        work: Work,
        side: Side,
        clients: Int,
        round: Int,
        requests: Int,
        seconds: Double,
        p50: Double,
        p99: Double,
        cpu: [String: Double],
        worked: Int
    ) {
        self.work = work
        self.side = side
        self.clients = clients
        self.round = round
        self.requests = requests
        self.seconds = seconds
        self.p50 = p50
        self.p99 = p99
        self.cpu = cpu
        self.worked = worked
    }

    /// Requests a second.
    public var rate: Double { seconds > 0 ? Double(requests) / seconds : 0 }

    /// Processor time of the servers for one request, in microseconds: all but the load generator's and what has nothing to do with the comparison.
    public var cpuPerRequest: Double {
        let used = cpu.reduce(0) { Group.servers.contains($1.key) ? $0 + $1.value : $0 }
        return worked > 0 ? used / Double(worked) : 0
    }

    /// The run in a line.
    public var line: String {
        func cell(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: Swift.max(0, width - text.count)) }
        func number(_ value: Double, _ digits: Int, _ width: Int) -> String {
            let text = value.digits(digits)
            return String(repeating: " ", count: Swift.max(0, width - text.count)) + text
        }
        return "   \(cell(work.rawValue, 9)) \(cell(side.rawValue, 22)) c=\(cell(String(clients), 4)) \(number(rate, 0, 8))/s   "
            + "p50 \(number(p50, 2, 8)) ms   p99 \(number(p99, 2, 8)) ms   cpu \(number(cpuPerRequest, 1, 7)) us"
    }
}

/// Groups of processes in the order of the table.
public enum Group {
    /// The groups that do the work, the peers' own among them.
    public static let servers = ["product", "order", "gateway", "redis", "postgres", "rabbitmq", "peer"]
    /// The load generator.
    public static let load = "load"
    /// Everything else on the machine.
    public static let other = "other"
    /// All columns.
    public static let all = servers + [load, other]
}
