public import Foundation
import Glibc

/// A file that the report goes to, opened before the sale: a sale of minutes whose figures cannot be kept is not begun.
///
/// What stood in it stays until it is written over as a whole.
public final class OutputFile: Sendable {
    /// The path as it was given.
    public let path: String
    private let descriptor: Int32
    private let isStandardOutput: Bool

    /// Opens or makes the file; `-` is standard output.
    /// - Throws: `PlanError` with the system's reason.
    public init(_ path: String) throws(PlanError) {
        self.path = path
        isStandardOutput = path == "-"
        descriptor = isStandardOutput ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0) : open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw PlanError("\(path) cannot be written: \(String(cString: strerror(errno)))") }
    }

    deinit {
        _ = Glibc.close(descriptor)
    }

    /// Whether both are one regular file, under the same name or another: what one writes, the other would overwrite.
    public func isSame(as other: OutputFile) -> Bool {
        var (mine, theirs) = (stat(), stat())
        guard fstat(descriptor, &mine) == 0, fstat(other.descriptor, &theirs) == 0, mine.st_mode & S_IFMT == S_IFREG else { return false }
        return mine.st_dev == theirs.st_dev && mine.st_ino == theirs.st_ino
    }

    /// Replaces the content.
    /// - Throws: `PlanError` with the system's reason, such as a full disk.
    public func write(_ data: Data) throws(PlanError) {
        var status = stat()
        // A pipe or a terminal cannot be cut, and need not be; what standard output goes to may hold what came before.
        if !isStandardOutput, fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG {
            guard ftruncate(descriptor, 0) == 0, lseek(descriptor, 0, SEEK_SET) == 0 else { throw failed() }
        }
        try append(data)
    }

    /// Adds to the content.
    /// - Throws: `PlanError` with the system's reason.
    public func append(_ data: Data) throws(PlanError) {
        var rest = data[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failed() }
            rest = rest.dropFirst(count)
        }
    }

    private func failed() -> PlanError {
        PlanError("\(path) cannot be written: \(String(cString: strerror(errno)))")
    }
}
