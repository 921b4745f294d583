import FlashSaleKit

/// What the samples of one server say: how much memory it took over the time, and whether it gave its descriptors back.
public struct ServerVerdict: Equatable, Sendable {
    /// The most that a server may hold, in bytes.
    public static let memoryBound = 150 * 1_024 * 1_024
    /// What may be held more in the last part of the time than in an early one, in bytes: what the allocator keeps for itself, and below a minute what pools
    /// and caches still take until they are full.
    static func slack(seconds: Double) -> Int { (seconds < 60 ? 32 : 8) * 1_024 * 1_024 }
    /// How many more descriptors may be open after the load than before: connections that one side has ended and the other still holds.
    static let descriptorSlack = 8

    /// The server's name in the stack.
    public var server: String
    /// Median memory between one and two fifths of the time, when in a long one every pool and cache has filled, in bytes.
    public var early: Int
    /// Median memory of the last fifth, in bytes.
    public var late: Int
    /// The most, in bytes.
    public var peak: Int
    /// Open descriptors at rest, before the load.
    public var descriptorsBefore: Int
    /// Open descriptors at rest, after the load.
    public var descriptorsAfter: Int
    /// What is not as it should be; empty if all is.
    public var findings: [String]

    /// - Parameters:
    ///   - samples: the looks at this server under load, in order of time.
    ///   - before: a look at rest before the load.
    ///   - after: a look at rest after the load.
    ///   - seconds: the length of the load.
    public init(_ samples: [ServerSample], before: ServerSample, after: ServerSample, seconds: Double) {
        func median(_ from: Double, _ to: Double) -> Int? {
            let part = samples.filter { $0.seconds >= seconds * from && $0.seconds < seconds * to }.map(\.memory).sorted()
            return part.isEmpty ? nil : part[part.count / 2]
        }
        server = before.server
        early = median(0.2, 0.4) ?? 0
        late = median(0.8, 1) ?? 0
        peak = samples.map(\.memory).max() ?? 0
        descriptorsBefore = before.descriptors
        descriptorsAfter = after.descriptors
        findings = []
        if early == 0 || late == 0 { findings.append("\(server): too few looks at its memory: \(samples.count)") }
        if Set((samples + [before, after]).map(\.pid)).count > 1 { findings.append("\(server): its process ended and another began") }
        if peak > Self.memoryBound { findings.append("\(server): \(peak.mebibytes) MiB of memory, at most \(Self.memoryBound.mebibytes)") }
        if late - early > max(Self.slack(seconds: seconds), early / 10) {
            findings.append("\(server): memory grew from \(early.mebibytes) to \(late.mebibytes) MiB")
        }
        if after.descriptors > before.descriptors + Self.descriptorSlack {
            findings.append("\(server): \(after.descriptors) descriptors open at rest, \(before.descriptors) before the load")
        }
    }

    /// The server's row of the table.
    var cells: [String] {
        [server, early.mebibytes, late.mebibytes, peak.mebibytes, String(descriptorsBefore), String(descriptorsAfter)]
    }

    static let head = ["server", "MiB early", "MiB late", "MiB most", "fds before", "fds after"]
}

extension Int {
    /// Bytes in MiB with one digit.
    var mebibytes: String { (Double(self) / 1_048_576).digits(1) }
}
