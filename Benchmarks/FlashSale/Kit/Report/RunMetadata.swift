public import Foundation

/// What a run was: where, when, with which settings. Nothing secret: headers by their names alone.
public enum RunMetadata {
    /// The harness' own version.
    public static let version = "1.1.0"

    /// Everything a reader needs to run it again and to judge whether two runs may be compared.
    public static func json(_ settings: SaleConfiguration, audit: Audit.Basis, started: Date) -> ReportValue {
        .object([
            "started": .string(started.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))),
            "harness": .string(version),
            "swift": .string(swift),
            "machine": machine,
            "seed": .string(String(settings.seed)),
            "settings": .object(Dictionary(uniqueKeysWithValues: settings.described(audit: audit).map { ($0.0, .string($0.1)) })),
        ])
    }

    private static var swift: String {
        #if compiler(>=6.3)
            "6.3 or later"
        #else
            "6.2"
        #endif
    }

    /// Processor, cores, memory and kernel of this machine.
    public static var machine: ReportValue {
        let information = ProcessInfo.processInfo
        var system = utsname()
        uname(&system)
        let kernel = withUnsafeBytes(of: &system.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let processor = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.split(separator: "\n")
            .first { $0.hasPrefix("model name") }?.split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) }
        return .object([
            "processor": .optional(processor), "cores": .int(information.activeProcessorCount),
            "memoryBytes": .int(Int64(clamping: information.physicalMemory)), "kernel": .string(kernel),
            "isDebugBuild": .bool(isDebugBuild),
        ])
    }

    private static var isDebugBuild: Bool {
        #if DEBUG
            true
        #else
            false
        #endif
    }
}

extension SaleConfiguration {
    /// The settings in words, in the order of a reader's interest.
    public func described(audit: Audit.Basis) -> [(String, String)] {
        var lines: [(String, String)] = [("gateway", ([gateway] + moreGateways).joined(separator: ", "))]
        if let product { lines.append(("product", String(product))) } else { lines.append(("units", units.grouped)) }
        lines.append(("orders", orders == .max ? "as long as it lasts" : orders.grouped))
        switch arrivals {
        case .concurrency(let buyers): lines.append(("load", "closed loop, \(buyers) at a time"))
        case .rate(let rate, let inFlight): lines.append(("load", "open loop, \(rate.perSecond.grouped)/s, at most \(inFlight) in flight"))
        case .schedule(let schedule, let process, let inFlight):
            // Written out: two sales of three seconds each may ask for very different rates.
            lines.append(("load", "open loop (\(process.rawValue)), \(schedule.words), at most \(inFlight) in flight"))
        }
        if let lasts { lines.append(("duration", "\(lasts.inSeconds.plain) s")) }
        if let deadline { lines.append(("deadline", "\(deadline.inSeconds.plain) s")) }
        lines.append(("kind of order", isAsync ? "accepted first, decided over the broker" : "decided at once"))
        lines.append(("quantity", largestQuantity.map { "\(quantity) to \($0)" } ?? String(quantity)))
        if products > 1 { lines.append(("products", "\(products), \(spread)")) }
        if habits.duplicates > 0 { lines.append(("sent twice", "\((habits.duplicates * 100).plain) %")) }
        if habits.cancellations > 0 { lines.append(("cancelled", "\((habits.cancellations * 100).plain) %")) }
        if habits.views > 0 { lines.append(("looks before an order", String(habits.views))) }
        lines.append(("buyers", buyers.grouped))
        lines.append(("timeout, retries", "\(timeout.inSeconds.plain) s, \(retries)"))
        lines.append(("threads", String(threads)))
        if !headers.isEmpty { lines.append(("headers", headers.map(\.name).joined(separator: ", "))) }
        if isUnbudgeted { lines.append(("units kept for the time after an outage", "none")) }
        if !disruptions.isEmpty { lines.append(("faults", disruptions.map(\.words).joined(separator: "; "))) }
        lines.append(("audit", audit.rawValue))
        lines.append(("seed", String(seed)))
        return lines
    }
}
