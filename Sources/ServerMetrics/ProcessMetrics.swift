import FoundationEssentials
import Glibc

/// The process' own figures, under the names that Prometheus' client libraries use.
public enum ProcessMetrics {
    /// Shows them in a registry.
    public static func register(in registry: MetricsRegistry) {
        let started = Date().timeIntervalSince1970
        registry.gauge("process_start_time_seconds", help: "When the process started, in seconds since 1970.") { started }
        registry.gauge("process_resident_memory_bytes", help: "Memory in use, in bytes.") { residentBytes() }
        registry.gauge("process_open_fds", help: "Open file descriptors.") { openFileDescriptors() }
        registry.collector("process_cpu_seconds_total", help: "CPU time used, in seconds.", kind: .counter) {
            [MetricsRegistry.Sample(cpuSeconds())]
        }
    }

    private static func cpuSeconds() -> Double {
        var usage = rusage()
        guard getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 else { return .nan }
        return Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6
    }

    /// The second number of `/proc/self/statm`, in pages (proc(5)).
    private static func residentBytes() -> Double {
        guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else { return .nan }
        let fields = text.split(separator: " ")
        guard fields.count > 1, let pages = Double(fields[1]) else { return .nan }
        return pages * Double(sysconf(Int32(_SC_PAGESIZE)))
    }

    private static func openFileDescriptors() -> Double {
        guard let entries = try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd") else { return .nan }
        // One of them is the listing's own.
        return Double(entries.count - 1)
    }
}
