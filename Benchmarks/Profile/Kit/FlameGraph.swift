import FlashSaleKit

/// A flame graph as SVG: one box a function, as wide as its share of the samples, on top of the function that called it
/// (Gregg, "The Flame Graph", Communications of the ACM 59(6), 2016). The order from left to right is that of the alphabet and means nothing.
///
/// Light and dark follow the viewer's preference. Without a script, so that a page may show it as an image; a box says its name and share when it is pointed at.
public struct FlameGraph: Sendable {
    private static let width = 1200.0
    private static let row = 16.0
    private static let margin = 10.0
    private static let head = 34.0
    /// Boxes that are narrower are left out, with all that stands on them. In pixels.
    private static let least = 0.6
    /// The width of a character of the monospaced font, in pixels.
    private static let character = 6.2

    private let title: String
    private let samples: StackSamples

    /// - Parameters:
    ///   - title: what was measured
    ///   - samples: of one process
    public init(title: String, _ samples: StackSamples) {
        self.title = title
        self.samples = samples
    }

    /// The kind of code that a function belongs to, by its name: it has a colour of its own.
    private static func kind(_ name: String) -> String {
        func begins(_ parts: String...) -> Bool { parts.contains { name.hasPrefix($0) } }
        func holds(_ parts: String...) -> Bool { parts.contains { name.contains($0) } }
        if begins("[") { return "unknown" }
        if begins("swift_", "_swift_") || holds("swift::") { return "runtime" }
        if begins("malloc", "free", "calloc", "realloc", "cfree", "_int_malloc", "_int_free", "unlink_chunk") { return "memory" }
        // What a C compiler adds to a name when it splits or specialises a function.
        if holds(".isra.", ".part.", ".constprop.", ".cold") { return "c" }
        if holds("Channel", "EventLoop", "NIO", "ByteBuffer", "Selector", "Socket.", "HTTPDecoder") { return "nio" }
        return holds("(", ".", "closure", "witness") ? "code" : "c"
    }

    private static let colours = [
        ("code", "#79b8ff", "Swift"), ("nio", "#b392f0", "SwiftNIO and its buffers"), ("runtime", "#ffab70", "Swift runtime"),
        ("memory", "#f97583", "memory"), ("c", "#85e89d", "C libraries and kernel"), ("unknown", "#d1d5da", "no name"),
    ]

    /// The drawing.
    public var svg: String {
        let total = max(samples.root.total, 1)
        let scale = (Self.width - 2 * Self.margin) / Double(total)
        var boxes: [String] = []
        var highest = 0
        func draw(_ frame: StackSamples.Frame, from start: Int, depth: Int) {
            let width = Double(frame.total) * scale
            guard width >= Self.least else { return }
            highest = max(highest, depth)
            let (x, share) = (Self.margin + Double(start) * scale, 100 * Double(frame.total) / Double(total))
            let name = frame.name.isEmpty ? "all" : frame.name
            let room = Int((width - 4) / Self.character)
            let label = room < 3 ? "" : name.count <= room ? name : name.prefix(room - 1) + "…"
            let y = -Double(depth + 1) * Self.row
            boxes.append(
                "<g><title>\(Self.escaped(name)): \(Self.text(share, 1)) %</title>"
                    + "<rect class=\"\(frame.name.isEmpty ? "unknown" : Self.kind(name))\" x=\"\(Self.text(x, 1))\" y=\"\(Self.text(y, 0))\" width=\"\(Self.text(width, 1))\" height=\"15\"/>"
                    + (label.isEmpty
                        ? "" : "<text x=\"\(Self.text(x + 2, 1))\" y=\"\(Self.text(y + 11, 0))\">\(Self.escaped(label))</text>") + "</g>"
            )
            var at = start
            for callee in frame.callees {
                draw(callee, from: at, depth: depth + 1)
                at += callee.total
            }
        }
        draw(samples.root, from: 0, depth: 0)
        let height = Self.head + Double(highest + 1) * Self.row + Self.margin
        var legend = ""
        var x = Self.margin
        for (name, _, words) in Self.colours {
            legend +=
                "<rect class=\"\(name)\" x=\"\(Self.text(x, 0))\" y=\"20\" width=\"9\" height=\"9\"/><text class=\"title\" x=\"\(Self.text(x + 13, 0))\" y=\"28\">\(words)</text>"
            x += 32 + Double(words.count) * Self.character
        }
        let fills = Self.colours.map { ".\($0.0){fill:\($0.1)}" }.joined()
        return """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Self.text(Self.width, 0)) \(Self.text(height, 0))" font-family="ui-monospace,monospace" font-size="10">
            <style>.ground{fill:#fff}.title{fill:#1f2328}text{fill:#1f2328}\(fills)@media(prefers-color-scheme:dark){.ground{fill:#0d1117}.title{fill:#e6edf3}}</style>
            <rect class="ground" width="100%" height="100%"/>
            <text class="title" x="\(Self.text(Self.margin, 0))" y="14" font-size="12">\(Self.escaped(title)); \(total) samples</text>
            \(legend)
            <g transform="translate(0,\(Self.text(height - Self.margin, 0)))">
            \(boxes.joined(separator: "\n"))
            </g>
            </svg>

            """
    }

    private static func escaped(_ text: some StringProtocol) -> String {
        var out = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": out += "&amp;"
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "\"": out += "&quot;"
            default: if scalar.value >= 0x20 { out.unicodeScalars.append(scalar) }
            }
        }
        return out
    }

    /// A number with so many digits behind the point.
    private static func text(_ number: Double, _ digits: Int) -> String { number.digits(digits) }
}
