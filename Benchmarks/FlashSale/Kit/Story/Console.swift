import Foundation
import Synchronization

/// Where the sale is told: lines that stay, and below them a panel that is drawn anew. Where nothing can be drawn anew, lines alone.
public struct Console: Sendable {
    /// What can be shown.
    public struct Terminal: Equatable, Sendable {
        /// Characters in a line.
        public var columns: Int
        /// Lines.
        public var rows: Int
        /// Whether colours are wanted.
        public var hasColours: Bool
        /// Whether more than ASCII can be shown.
        public var hasBlocks: Bool

        /// The usual size.
        public init(columns: Int = 80, rows: Int = 24, hasColours: Bool = false, hasBlocks: Bool = true) {
            self.columns = columns
            self.rows = rows
            self.hasColours = hasColours
            self.hasBlocks = hasBlocks
        }
    }

    /// Whether the panel and the story are left out.
    public let isQuiet: Bool
    /// Looks at the terminal; nil where there is none.
    private let look: @Sendable () -> Terminal?
    private let write: @Sendable (String) -> Void
    /// Lines of the panel that are on the screen.
    private let drawn = Drawn()

    private final class Drawn: Sendable {
        let lines = Mutex(0)
    }

    /// - Parameters:
    ///   - terminal: what it is written to now; nil for none.
    ///   - write: takes text as it is to appear.
    public init(isQuiet: Bool, terminal: @escaping @Sendable () -> Terminal?, write: @escaping @Sendable (String) -> Void) {
        self.isQuiet = isQuiet
        look = terminal
        self.write = write
    }

    /// A terminal of the usual size, or none.
    public init(isTerminal: Bool, isQuiet: Bool, write: @escaping @Sendable (String) -> Void) {
        self.init(isQuiet: isQuiet, terminal: { isTerminal ? Terminal() : nil }, write: write)
    }

    /// Standard output, or standard error where the former is taken.
    public static func standard(isQuiet: Bool, onStandardError: Bool = false) -> Console {
        let descriptor = onStandardError ? STDERR_FILENO : STDOUT_FILENO
        let environment = ProcessInfo.processInfo.environment
        return Console(isQuiet: isQuiet, terminal: { terminal(descriptor, environment) }) { text in
            let handle = onStandardError ? FileHandle.standardError : FileHandle.standardOutput
            // A reader that went away is no reason to end the sale halfway.
            try? handle.write(contentsOf: Data(text.utf8))
        }
    }

    /// What a descriptor shows. `NO_COLOR` that is set and not empty takes the colours away (no-color.org), a dumb terminal can move no cursor.
    static func terminal(_ descriptor: Int32, _ environment: [String: String]) -> Terminal? {
        guard isatty(descriptor) == 1, environment["TERM"] != "dumb" else { return nil }
        var size = winsize()
        let isKnown = ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 && size.ws_row > 0
        return settings(environment, columns: isKnown ? Int(size.ws_col) : 80, rows: isKnown ? Int(size.ws_row) : 24)
    }

    static func settings(_ environment: [String: String], columns: Int, rows: Int) -> Terminal {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].lazy.compactMap { environment[$0] }.first { !$0.isEmpty } ?? ""
        return Terminal(
            columns: columns,
            rows: rows,
            hasColours: environment["NO_COLOR"]?.isEmpty ?? true,
            hasBlocks: locale.uppercased().contains("UTF-8") || locale.uppercased().contains("UTF8")
        )
    }

    /// Nil where nothing can be drawn anew.
    public var terminal: Terminal? { look() }
    /// Whether there is a terminal, on which a panel can be drawn anew.
    public var isTerminal: Bool { terminal != nil }

    /// A line of the report: always printed, above the panel.
    public func line(_ text: String) {
        drawn.lines.withLock { lines in
            write(Self.erase(lines) + text + "\n")
            lines = 0
        }
    }

    /// A line of the story.
    public func story(_ text: String) {
        if !isQuiet { line(text) }
    }

    /// Draws the panel anew. Its lines must fit.
    func draw(_ panel: [String]) {
        guard !isQuiet else { return }
        drawn.lines.withLock { lines in
            write(Self.erase(lines) + panel.map { $0 + "\n" }.joined())
            lines = panel.count
        }
    }

    /// Goes back to the panel's first line and clears everything from there.
    private static func erase(_ lines: Int) -> String {
        lines == 0 ? "" : "\u{1B}[\(lines)A\r\u{1B}[J"
    }
}
