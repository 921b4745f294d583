import Foundation
import Glibc

/// Processor time of every process of the machine, as `/proc` has it at one moment.
package struct ProcessTimes: Sendable {
    /// One process, in clock ticks.
    struct Entry: Equatable, Sendable {
        var parent: Int
        /// Time of the process itself.
        var own: Int
        /// Time of its children that have ended and were waited for.
        var ended: Int
    }

    /// The processes, by process id.
    var processes: [Int: Entry] = [:]
    /// Time of all processors together, user, nice and system, in clock ticks.
    var busy = 0

    /// Where the time went, in microseconds. Time that cannot be attributed is `other`.
    package struct Shares: Equatable, Sendable {
        package var byGroup: [String: Double] = [:]
        var other = 0.0
    }

    /// Reads all of `/proc`. Processes that end meanwhile are left out.
    package static func now() -> ProcessTimes {
        var times = ProcessTimes()
        if let text = try? String(contentsOfFile: "/proc/stat", encoding: .utf8) { times.busy = busyTicks(text) ?? 0 }
        for name in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] {
            guard let pid = Int(name), let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
                let entry = Entry(stat: text)
            else { continue }
            times.processes[pid] = entry
        }
        return times
    }

    /// User, nice and system time in the first line of `/proc/stat`.
    static func busyTicks(_ text: String) -> Int? {
        let fields = text.split(separator: "\n").first?.split(separator: " ") ?? []
        guard fields.count > 3, fields[0] == "cpu" else { return nil }
        let numbers = fields[1...3].compactMap { Int($0) }
        return numbers.count == 3 ? numbers.reduce(0, +) : nil
    }

    /// Ticks by group. A process belongs to the nearest root among itself and its ancestors. The time of children that have ended counts only where a root
    /// itself has waited for them.
    /// - Parameter roots: group by process id.
    func ticks(_ roots: [Int: String]) -> (byGroup: [String: Int], other: Int) {
        var sums: [String: Int] = [:]
        var other = busy
        for (pid, entry) in processes {
            var at = pid
            var steps = 0
            // A process may get another parent while `/proc` is read: the walk is bounded.
            while roots[at] == nil, let next = processes[at], next.parent != at, steps < 64 {
                at = next.parent
                steps += 1
            }
            guard let group = roots[at] else { continue }
            let ticks = entry.own + (roots[pid] == nil ? 0 : entry.ended)
            sums[group, default: 0] += ticks
            other -= ticks
        }
        return (sums, other)
    }

    /// What was used between two moments, in microseconds.
    package static func between(_ before: ProcessTimes, _ after: ProcessTimes, roots: [Int: String], ticksPerSecond: Int) -> Shares {
        let (first, firstOther) = before.ticks(roots)
        let (last, lastOther) = after.ticks(roots)
        let scale = 1e6 / Double(max(ticksPerSecond, 1))
        var shares = Shares()
        for group in Set(roots.values) {
            shares.byGroup[group] = Double(max(0, (last[group] ?? 0) - (first[group] ?? 0))) * scale
        }
        shares.other = Double(max(0, lastOther - firstOther)) * scale
        return shares
    }

    package static var ticksPerSecond: Int { Int(sysconf(Int32(_SC_CLK_TCK))) }
}

extension ProcessTimes.Entry {
    /// Reads `/proc/PID/stat`. The name in parentheses may hold blanks and parentheses, so fields are counted behind the last one.
    init?(stat text: String) {
        guard let close = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: close)...].split(separator: " ", maxSplits: 16)
        guard fields.count > 14, let parent = Int(fields[1]), let user = Int(fields[11]), let system = Int(fields[12]),
            let endedUser = Int(fields[13]), let endedSystem = Int(fields[14])
        else { return nil }
        self.init(parent: parent, own: user + system, ended: endedUser + endedSystem)
    }
}
