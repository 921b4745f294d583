import FlashSaleKit

/// The result as a drawing in SVG: one panel a kind of work with a bar a side, and the processor time of a whole order, process by process.
///
/// A page shows it as an image, where no style sheet of the page reaches: each theme is a file of its own.
public struct ResultChart: Sendable {
    /// Colours.
    public enum Theme: String, Sendable, CaseIterable {
        case light
        case dark

        var background: String { self == .light ? "#ffffff" : "#0d1117" }
        var text: String { self == .light ? "#1f2328" : "#e6edf3" }
        var faint: String { self == .light ? "#59636e" : "#9198a1" }
        var ours: String { self == .light ? "#0969da" : "#4493f8" }
        var peer: String { self == .light ? "#b1bac4" : "#484f58" }
        /// Colours of the groups, in the order of `Group.servers`.
        var groups: [String] {
            self == .light
                ? ["#0969da", "#8250df", "#1a7f37", "#cf222e", "#9a6700", "#bc4c00", "#6e7781"]
                : ["#4493f8", "#ab7df8", "#3fb950", "#f85149", "#d29922", "#db6d28", "#8b949e"]
        }
    }

    private struct Bar {
        var name: String
        var value: Double
        var isOurs: Bool
        /// Parts by their place in `Group.servers`, for a stacked bar.
        var parts: [Double] = []
    }

    private struct Panel {
        var title: String
        var unit: String
        var bars: [Bar]
    }

    private static let width = 860.0
    private static let left = 190.0
    private static let right = 110.0
    private static let barHeight = 18.0
    private static let step = 24.0

    private let panels: [Panel]
    private let footnote: String
    private let hasStack: Bool

    /// - Parameter result: what it draws.
    public init(_ result: PeerResult) {
        func bars(_ works: [Work]) -> [Bar] {
            Side.allCases.flatMap { side -> [Bar] in
                works.compactMap { work in
                    let clients = side.isPgbench ? (side == .pgbenchFunction ? 2 : 32) : 128
                    guard let rate = result.rate(work, side, clients) else { return nil }
                    let name = work == .accepted ? "\(side.rawValue), /v2/orders" : side.rawValue
                    return Bar(name: name, value: rate, isOurs: side.isOurs)
                }
            }
        }
        var panels = [
            Panel(title: "Whole orders, 128 connections", unit: "/s", bars: bars([.order, .accepted])),
            Panel(title: "Durable decreases of one hot product, 128 connections", unit: "/s", bars: bars([.durable])),
            Panel(title: "The same while Redis is down", unit: "/s", bars: bars([.direct])),
            Panel(title: "Sold-out orders", unit: "/s", bars: bars([.rejected])),
            Panel(title: "Sold-out decreases", unit: "/s", bars: bars([.soldOut])),
        ]
        let stacks = result.cpu.filter { $0.work == .order && $0.clients == 128 }.map { line in
            Bar(
                name: line.side.rawValue,
                value: line.servers,
                isOurs: line.side.isOurs,
                parts: Group.servers.map { line.byGroup[$0] ?? 0 }
            )
        }
        panels.append(Panel(title: "Processor time of a whole order, all servers", unit: " us", bars: stacks))
        self.panels = panels.filter { !$0.bars.isEmpty }
        hasStack = !stacks.isEmpty
        footnote =
            "\(result.machine.cores) cores (\(result.machine.processor)); medians of \(result.settings.rounds) rounds of "
            + "\(result.settings.secondsEach.digits(1).trimmed) s" + (result.doubts.isEmpty ? "" : "; not to be relied on, see the table")
    }

    /// The whole file.
    public func svg(_ theme: Theme) -> String {
        var y = 16.0
        var body = ""
        func text(
            _ x: Double,
            _ y: Double,
            _ content: String,
            _ size: Int,
            _ colour: String,
            anchor: String = "start",
            weight: String = "400"
        ) {
            body +=
                #"<text x="\#(x.digits(1))" y="\#(y.digits(1))" font-size="\#(size)" font-weight="\#(weight)" text-anchor="\#(anchor)" fill="\#(colour)">\#(Self.escaped(content))</text>"#
                + "\n"
        }
        func rectangle(_ x: Double, _ y: Double, _ width: Double, _ colour: String) {
            body +=
                #"<rect x="\#(x.digits(1))" y="\#(y.digits(1))" width="\#(max(width, 0.5).digits(1))" height="\#(Self.barHeight.digits(0))" rx="2" fill="\#(colour)"/>"#
                + "\n"
        }
        for panel in panels {
            y += 16
            text(16, y, panel.title, 14, theme.text, weight: "600")
            y += 12
            let largest = max(panel.bars.map(\.value).max() ?? 0, 1e-9)
            let scale = (Self.width - Self.left - Self.right) / largest
            for bar in panel.bars {
                text(
                    Self.left - 8,
                    y + 13,
                    bar.name,
                    12,
                    bar.isOurs ? theme.text : theme.faint,
                    anchor: "end",
                    weight: bar.isOurs ? "600" : "400"
                )
                if bar.parts.isEmpty {
                    rectangle(Self.left, y, bar.value * scale, bar.isOurs ? theme.ours : theme.peer)
                } else {
                    var x = Self.left
                    for (part, colour) in zip(bar.parts, theme.groups) where part > 0 {
                        rectangle(x, y, part * scale, colour)
                        x += part * scale
                    }
                }
                let value = panel.unit == "/s" ? Int(min(bar.value, 1e12).rounded()).grouped : bar.value.digits(0)
                text(Self.left + bar.value * scale + 6, y + 13, value + panel.unit, 12, bar.isOurs ? theme.text : theme.faint)
                y += Self.step
            }
            y += 8
        }
        if hasStack {
            var x = Self.left
            for (name, colour) in zip(Group.servers, theme.groups) {
                rectangle(x, y - 2, 12, colour)
                text(x + 17, y + 11, name, 12, theme.faint)
                x += 30 + Double(name.count) * 7
            }
            y += 32
        }
        text(16, y + 4, footnote, 11, theme.faint)
        y += 20
        let (width, height) = (Self.width.digits(0), y.digits(0))
        return
            #"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \#(width) \#(height)" width="\#(width)" height="\#(height)" "#
            + #"font-family="-apple-system,Segoe UI,Helvetica,Arial,sans-serif" role="img" aria-label="StockGate beside its peers">"# + "\n"
            + #"<rect width="\#(width)" height="\#(height)" fill="\#(theme.background)"/>"# + "\n" + body + "</svg>\n"
    }

    private static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;").replacing("\"", with: "&quot;")
    }
}
