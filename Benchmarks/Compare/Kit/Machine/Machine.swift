import FlashSaleKit
import Foundation
import Glibc

/// What a comparison ran on: figures of two kinds of machine are not to be compared.
public struct Machine: Codable, Equatable, Sendable {
    /// As the processor calls itself.
    public var processor: String
    /// Processors that this process may use.
    public var cores: Int
    /// Memory, in bytes.
    public var memory: UInt64
    /// Name and release of the kernel.
    public var kernel: String
    /// The load average over one minute, before the run.
    public var loadAverage: Double

    /// Makes a machine of its figures.
    public init(processor: String, cores: Int, memory: UInt64, kernel: String, loadAverage: Double) {
        self.processor = processor
        self.cores = cores
        self.memory = memory
        self.kernel = kernel
        self.loadAverage = loadAverage
    }

    /// This machine, now.
    public static var here: Machine {
        var system = utsname()
        uname(&system)
        func text<Field>(_ field: Field) -> String {
            withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        }
        let information = ProcessInfo.processInfo
        let load = (try? String(contentsOfFile: "/proc/loadavg", encoding: .utf8))?.split(separator: " ").first.flatMap { Double($0) }
        return Machine(
            processor: processor((try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""),
            cores: information.activeProcessorCount,
            memory: information.physicalMemory,
            kernel: "\(text(system.sysname)) \(text(system.release))",
            loadAverage: load ?? 0
        )
    }

    /// The first `model name` of `/proc/cpuinfo`; not every architecture has one.
    static func processor(_ text: String) -> String {
        for line in text.split(separator: "\n") where line.hasPrefix("model name") {
            if let colon = line.firstIndex(of: ":") { return line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces) }
        }
        return "unknown processor"
    }

    /// The kind of machine as a folder's name: processor and cores. A newer run of the same kind replaces an older one.
    public var kind: String {
        let words = processor.lowercased().split { !$0.isASCII || !($0.isLetter || $0.isNumber) }
        return (words + ["\(cores)-cores"]).joined(separator: "-")
    }

    /// In one line.
    public var line: String { "\(cores) cores (\(processor)), \(Int(memory >> 30)) GiB, \(kernel)" }
}
