// Writes the log on a thread of its own: a pipe that nobody reads blocks whoever writes to it, and that must not be a request, a lane or a shutdown.
//
// Invariant: lines leave in the order in which they came. A line is written, or it is dropped and counted.
//
// Bounds: `maximumLines` lines wait, each cut after `maximumBytes`. Stop: the thread ends with the process, which gives the lines that wait `patience`.

import BlockingThreads
import Glibc
import Synchronization

/// Takes lines of the log, and writes them to a descriptor. Nothing that a caller does waits for the reader of the log.
public final class LogOutput: Sendable {
    private enum Item: Sendable {
        case line([UInt8])
        /// Everything that came before is written.
        case mark(WakeDescriptor)
    }

    /// What the callers and the thread share.
    private final class Shared: Sendable {
        let queue = ThreadQueue<Item>()
        let dropped = Atomic<UInt64>(0)
    }

    /// Lines that wait at most.
    static let maximumLines = 4_096
    /// Bytes of one line at most.
    static let maximumBytes = 16_384
    /// How long the end of the process waits for the lines that are left.
    static let patience = Duration.seconds(1)

    private let descriptor: Int32
    private let shared = Shared()
    /// Whether there is a thread. A process that can have none writes by itself.
    private let hasThread: Bool

    /// The output of this process: standard error. What waits at the process' end is written then.
    public static let standardError: LogOutput = {
        atexit { LogOutput.standardError.flush(within: LogOutput.patience) }
        return LogOutput(STDERR_FILENO)
    }()

    /// - Parameter descriptor: where the lines go; it stays open for as long as the output is used
    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        let shared = shared
        do throws(ThreadUnavailable) {
            try BlockingThread.start(name: "log") { Self.run(shared, descriptor) }
            hasThread = true
        } catch {
            hasThread = false
        }
    }

    deinit { shared.queue.shutdown() }

    private static func run(_ shared: Shared, _ descriptor: Int32) {
        var told: UInt64 = 0
        while let items = shared.queue.takeAll() {
            for item in items {
                switch item {
                case .line(let line): write(line, to: descriptor)
                case .mark(let signal): signal.signal()
                }
            }
            let dropped = shared.dropped.load(ordering: .relaxed)
            guard dropped > told else { continue }
            write(Array("\(dropped &- told) lines of the log were dropped: nobody read them for a while\n".utf8), to: descriptor)
            told = dropped
        }
    }

    /// One write a line: lines below the pipe's atomic size do not mix with those of another process. What cannot be written is dropped.
    private static func write(_ line: [UInt8], to descriptor: Int32) {
        line.withUnsafeBytes { bytes in
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return }
                rest = rest.dropFirst(count)
            }
        }
    }

    /// Lines that were dropped because too many waited.
    public var dropped: UInt64 { shared.dropped.load(ordering: .relaxed) }

    /// Has a line written. A longer one than ``maximumBytes`` is cut.
    /// - Parameter line: ends with a line feed
    public func write(_ line: [UInt8]) {
        let end = Array("… (cut)\n".utf8)
        let line = line.count <= Self.maximumBytes ? line : line.prefix(Self.maximumBytes - end.count) + end
        guard hasThread else { return Self.write(line, to: descriptor) }
        if shared.queue.push(.line(line), limit: Self.maximumLines) != .accepted { shared.dropped.wrappingAdd(1, ordering: .relaxed) }
    }

    /// Waits until the lines that came before are written, or the time is over.
    public func flush(within time: Duration) {
        guard hasThread, let signal = try? WakeDescriptor() else { return }
        // The limit is for lines: this one has its place beside them.
        guard shared.queue.push(.mark(signal)) == .accepted else { return }
        signal.sleep(until: .now + time)
    }
}
