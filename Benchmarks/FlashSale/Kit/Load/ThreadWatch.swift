import Glibc
import NIOCore
import SwiftOverlayShims

/// A generator's look at its own thread: how late its ticks are and how much of the processor the thread uses.
struct ThreadWatch {
    private var began = 0.0
    private var last = 0.0
    private var windowBegan = NIODeadline.now()
    private var windowCPU = 0.0

    /// Must be called on the thread that is watched.
    mutating func begin(at now: NIODeadline) {
        began = Self.cpuSeconds()
        last = began
        windowBegan = now
        windowCPU = began
    }

    /// Returns the processor seconds since the last look.
    mutating func look(at now: NIODeadline, due: NIODeadline, _ health: inout GeneratorHealth) -> Double {
        health.tickLag.record(microseconds: (now - due).nanoseconds / 1000)
        let cpu = Self.cpuSeconds()
        let used = cpu - last
        last = cpu
        let window = Double((now - windowBegan).nanoseconds) / 1e9
        if window >= 1 {
            health.busiest = max(health.busiest, (cpu - windowCPU) / window)
            windowBegan = now
            windowCPU = cpu
        }
        return used
    }

    /// Sums up.
    mutating func end(_ health: inout GeneratorHealth) {
        health.cpuSeconds = Self.cpuSeconds() - began
    }

    /// Processor time of the calling thread.
    private static func cpuSeconds() -> Double {
        var time = timespec()
        guard clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0 else { return 0 }
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
