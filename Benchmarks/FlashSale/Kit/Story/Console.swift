import Foundation

/// Where the sale is told: lines that stay, and one line that is rewritten.
public struct Console: Sendable {
    /// Whether a line can be rewritten.
    public let isTerminal: Bool
    /// Whether the live line and the story are left out.
    public let isQuiet: Bool
    private let write: @Sendable (String) -> Void

    /// - Parameter write: takes text as it is to appear.
    public init(isTerminal: Bool, isQuiet: Bool, write: @escaping @Sendable (String) -> Void) {
        self.isTerminal = isTerminal
        self.isQuiet = isQuiet
        self.write = write
    }

    /// Standard output, or standard error where the former is taken.
    public static func standard(isQuiet: Bool, onStandardError: Bool = false) -> Console {
        let descriptor = onStandardError ? STDERR_FILENO : STDOUT_FILENO
        return Console(isTerminal: isatty(descriptor) == 1, isQuiet: isQuiet) { text in
            let handle = onStandardError ? FileHandle.standardError : FileHandle.standardOutput
            // A reader that went away is no reason to end the sale halfway.
            try? handle.write(contentsOf: Data(text.utf8))
        }
    }

    /// A line of the report: always printed.
    public func line(_ text: String) {
        write((isTerminal ? "\r\u{1B}[K" : "") + text + "\n")
    }

    /// A line of the story.
    public func story(_ text: String) {
        if !isQuiet { line(text) }
    }

    /// The live line: rewritten on a terminal, else a line of its own.
    public func live(_ text: String) {
        guard !isQuiet else { return }
        // Cut to 120 columns: a line that wraps could not be rewritten.
        write(isTerminal ? "\r\u{1B}[K" + String(text.prefix(119)) : text + "\n")
    }
}
