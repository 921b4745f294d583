/// Whether the harness itself was what limited the load.
///
/// Each generator looks at its own thread every few milliseconds: how late the look is, and how much of the processor the thread has used since. A thread that
/// is busy nearly all the time, or that sends orders later than they were meant, measures itself.
public struct GeneratorHealth: Sendable {
    /// Generators, each with a thread of its own.
    public var threads = 0
    /// Processor time of all their threads, in seconds.
    public var cpuSeconds = 0.0
    /// From the opening to the end, in seconds.
    public var seconds = 0.0
    /// The busiest second of any thread, as a part of it.
    public var busiest = 0.0
    /// How late the looks were.
    public var tickLag = Latencies()
    /// How long after its intended moment an order was sent that found a place at once. Of an open loop.
    public var sendLag = Latencies()

    /// A thread that is busy for more than this part of its time has no room left for a peak.
    static let busyLimit = 0.9
    /// Where the 99th percentile of a lag is above this, in milliseconds, the latencies are the harness's own.
    static let lagLimit = 10.0

    /// Nothing measured yet.
    public init() {}

    /// Takes in another thread's part.
    mutating func add(_ other: GeneratorHealth) {
        threads += other.threads
        cpuSeconds += other.cpuSeconds
        seconds = max(seconds, other.seconds)
        busiest = max(busiest, other.busiest)
        tickLag.add(other.tickLag)
        sendLag.add(other.sendLag)
    }

    /// Processor time as a part of what the threads had.
    public var busy: Double { threads == 0 || seconds <= 0 ? 0 : cpuSeconds / (seconds * Double(threads)) }

    /// What speaks against trusting the figures, in words; empty if nothing does.
    public var doubts: [String] {
        var doubts: [String] = []
        if busiest > Self.busyLimit {
            doubts.append(
                "a thread of the harness was busy \(Int(busiest * 100)) % of a second: give it more with --threads, or another machine"
            )
        }
        let lag = max(sendLag.milliseconds(at: 99), tickLag.milliseconds(at: 99))
        if lag > Self.lagLimit {
            doubts.append("the harness was \(Sale.decimal(lag)) ms late at its 99th percentile: its latencies are at least partly its own")
        }
        return doubts
    }

    /// The figures in one line.
    var line: String {
        var text =
            "generator: \(threads) thread\(threads == 1 ? "" : "s"), \(Int((busy * 100).rounded())) % busy (\(Int((busiest * 100).rounded())) % in its busiest second), "
        text += "ticks late p99 \(Sale.decimal(tickLag.milliseconds(at: 99))) ms"
        if sendLag.count > 0 { text += ", orders sent late p99 \(Sale.decimal(sendLag.milliseconds(at: 99))) ms" }
        return text
    }
}
