// Writes the log on a thread of its own: a pipe that nobody reads blocks whoever writes to it, and that must not be a request, a lane or a shutdown.
//
// Invariant: lines leave in the order in which they came. A line is written, or it is dropped and counted.
//
// Bounds: `maximumLines` lines wait behind as many that the thread has in hand, each cut after `maximumBytes`. Stop: the thread ends with the process, which gives the lines that wait `patience`.

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
                case .line(let line): if !write(line, to: descriptor) { shared.dropped.wrappingAdd(1, ordering: .relaxed) }
                case .mark(let signal): signal.signal()
                }
            }
            let dropped = shared.dropped.load(ordering: .relaxed)
            guard dropped > told else { continue }
            let note = Array("\(dropped &- told) lines of the log were dropped: nobody read them for a while\n".utf8)
            if write(note, to: descriptor) { told = dropped }
        }
    }

    /// One write a line: lines below the pipe's atomic size do not mix with those of another process.
    /// - Returns: whether the whole line was written. Without a reader, or with a descriptor that is closed, it is not.
    private static func write(_ line: [UInt8], to descriptor: Int32) -> Bool {
        line.withUnsafeBytes { bytes in
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if count > 0 {
                    rest = rest.dropFirst(count)
                } else if count < 0, errno == EAGAIN {
                    // Another process has made the descriptor, which both share, one that does not block.
                    var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    _ = poll(&entry, 1, -1)
                } else if count == 0 || errno != EINTR {
                    return false
                }
            }
            return true
        }
    }

    /// Lines that were dropped: too many waited, or they could not be written.
    public var dropped: UInt64 { shared.dropped.load(ordering: .relaxed) }

    /// Has a line written. A longer one than ``maximumBytes`` is cut.
    /// - Parameter line: ends with a line feed
    public func write(_ line: [UInt8]) {
        let end = Array("… (cut)\n".utf8)
        let line = line.count <= Self.maximumBytes ? line : line.prefix(Self.maximumBytes - end.count) + end
        let isTaken = hasThread ? shared.queue.push(.line(line), limit: Self.maximumLines) == .accepted : Self.write(line, to: descriptor)
        if !isTaken { shared.dropped.wrappingAdd(1, ordering: .relaxed) }
    }

    /// Waits until the lines that came before are written, or the time is over.
    public func flush(within time: Duration) {
        guard hasThread, let signal = try? WakeDescriptor() else { return }
        // The limit is for lines: this one has its place beside them.
        guard shared.queue.push(.mark(signal)) == .accepted else { return }
        signal.sleep(until: .now + time)
    }
}
