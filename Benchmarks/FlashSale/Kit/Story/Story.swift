/// What happened, in the order in which it happened.
///
/// Events come from several sources, some of which know of them late: the breaker's are read a few times a second. So a
/// line is told only when it is `patience` old, by which time every source has spoken; one that comes later still is told at once, with its own time.
/// Bound: 2,000 lines; further ones are counted, not kept.
public struct Story: Sendable {
    /// One line.
    public struct Line: Equatable, Sendable {
        /// Since the sale opened.
        public var at: Duration
        /// What happened.
        public var text: String
        /// Whether the text is a whole line, with its own time in it.
        var isWhole = false

        /// The line as it is printed.
        public var rendered: String {
            if isWhole { return text }
            let milliseconds = Int((at.inSeconds * 1000).rounded())
            let whole = String(abs(milliseconds) / 1000)
            let part = String(1000 + abs(milliseconds) % 1000).dropFirst()
            let time = (milliseconds < 0 ? "-" : "") + whole + "." + part
            return String(repeating: " ", count: max(0, 8 - time.count)) + time + " s  " + text
        }
    }

    /// How long a line is held back for earlier ones.
    public static let patience = Duration.milliseconds(700)
    static let limit = 2_000

    /// Everything so far, by time; lines of the same time in the order in which they were told.
    public private(set) var lines: [Line] = []
    /// Lines beyond the bound.
    public private(set) var dropped = 0
    private var untold: [Line] = []

    /// Nothing happened yet.
    public init() {}

    /// Something happened.
    public mutating func add(_ text: String, at: Duration) {
        guard lines.count < Self.limit else {
            dropped += 1
            return
        }
        let line = Line(at: at, text: text)
        Self.insert(line, into: &lines)
        Self.insert(line, into: &untold)
    }

    /// A whole line that is told among the others, by its time, and is no part of the story. Bound: as many as the story has; further ones are left out.
    public mutating func pass(_ text: String, at: Duration) {
        guard untold.count < Self.limit else { return }
        Self.insert(Line(at: at, text: text, isWhole: true), into: &untold)
    }

    /// Takes the lines that are old enough to be told, in order.
    public mutating func tell(upTo now: Duration) -> [Line] {
        let count = untold.firstIndex { $0.at > now - Self.patience } ?? untold.count
        defer { untold.removeFirst(count) }
        return Array(untold[..<count])
    }

    /// Takes all lines not told yet, in order.
    public mutating func tellAll() -> [Line] {
        defer { untold = [] }
        return untold
    }

    private static func insert(_ line: Line, into lines: inout [Line]) {
        let place = lines.lastIndex { $0.at <= line.at }.map { $0 + 1 } ?? 0
        lines.insert(line, at: place)
    }
}
