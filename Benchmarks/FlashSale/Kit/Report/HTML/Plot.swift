import Foundation

/// A rectangle with two axes, drawn as SVG. Colours are the page's: every shape has a class and no colour of its own.
struct Plot {
    /// How values become places.
    enum Scale {
        case linear
        case logarithmic
    }

    let width: Double
    let height: Double
    let x: ClosedRange<Double>
    let y: ClosedRange<Double>
    let yScale: Scale
    var left = 52.0
    var right = 12.0
    /// Room for the unit above the drawing, where no line runs through it.
    var top = 24.0
    var bottom = 26.0

    init(width: Double, height: Double, x: ClosedRange<Double>, y: ClosedRange<Double>, yScale: Scale = .linear) {
        self.width = width
        self.height = height
        self.x = x
        self.y = y
        self.yScale = yScale
    }

    func px(_ value: Double) -> Double {
        let span = max(x.upperBound - x.lowerBound, 1e-9)
        return left + (min(max(value, x.lowerBound), x.upperBound) - x.lowerBound) / span * (width - left - right)
    }

    func py(_ value: Double) -> Double {
        let bounded = min(max(value, y.lowerBound), y.upperBound)
        let part =
            switch yScale {
            case .linear: (bounded - y.lowerBound) / max(y.upperBound - y.lowerBound, 1e-9)
            case .logarithmic: log(bounded / y.lowerBound) / max(log(y.upperBound / y.lowerBound), 1e-9)
            }
        return height - bottom - part * (height - top - bottom)
    }

    /// A place as SVG has it.
    static func n(_ value: Double) -> String { value.digits(1) }

    /// Round numbers across a range, about so many.
    static func ticks(_ range: ClosedRange<Double>, count: Int) -> [Double] {
        let span = range.upperBound - range.lowerBound
        guard span > 0, span.isFinite, count > 0 else { return [range.lowerBound] }
        let raw = span / Double(count)
        let power = pow(10, floor(log10(raw)))
        let step = [1, 2, 5, 10].map { $0 * power }.first { $0 >= raw * 0.999 } ?? raw
        let first = (range.lowerBound / step).rounded(.up)
        return (0..<1_000).map { (first + Double($0)) * step }.prefix { $0 <= range.upperBound + step * 1e-6 }.map { $0 }
    }

    /// Powers of ten within a range, with 2 and 5 between them if there are few.
    static func logTicks(_ range: ClosedRange<Double>) -> [Double] {
        let (low, high) = (Int(floor(log10(range.lowerBound))), Int(ceil(log10(range.upperBound))))
        guard high - low < 30 else { return [] }
        let steps = high - low <= 3 ? [1.0, 2, 5] : [1.0]
        return (low...high).flatMap { power in steps.map { $0 * pow(10, Double(power)) } }.filter { range.contains($0) }
    }

    /// A number on an axis: `1.5k`, `20k`, `2M`, `0.5`.
    static func label(_ value: Double) -> String {
        func plain(_ value: Double) -> String {
            var text = value.digits(value.magnitude < 1 ? 2 : 1)
            while text.contains("."), text.hasSuffix("0") || text.hasSuffix(".") { text.removeLast() }
            return text
        }
        switch value.magnitude {
        case 1e6...: return plain(value / 1e6) + "M"
        case 1e3...: return plain(value / 1e3) + "k"
        default: return plain(value)
        }
    }

    /// Grid, axes and their numbers.
    func axes(yUnit: String, xTicks: [(at: Double, text: String)]) -> String {
        let values =
            switch yScale {
            case .linear: Self.ticks(y, count: height > 200 ? 5 : 3)
            case .logarithmic: Self.logTicks(y)
            }
        var svg = ""
        for value in values {
            let place = Self.n(py(value))
            svg += #"<line class="grid" x1="\#(Self.n(left))" x2="\#(Self.n(width - right))" y1="\#(place)" y2="\#(place)"/>"#
            svg += #"<text class="tick end" x="\#(Self.n(left - 6))" y="\#(Self.n(py(value) + 4))">\#(Self.label(value))</text>"#
        }
        for tick in xTicks {
            let anchor = px(tick.at) > width - right - 12 ? "end" : "middle"
            svg +=
                #"<text class="tick" text-anchor="\#(anchor)" x="\#(Self.n(px(tick.at)))" y="\#(Self.n(height - 8))">\#(tick.text)</text>"#
        }
        svg +=
            #"<line class="axis" x1="\#(Self.n(left))" x2="\#(Self.n(width - right))" y1="\#(Self.n(height - bottom))" y2="\#(Self.n(height - bottom))"/>"#
        svg += #"<text class="tick unit" x="\#(Self.n(left))" y="\#(Self.n(top - 10))">\#(yUnit)</text>"#
        return svg
    }

    /// A line through points; a gap where a value is missing.
    func line(_ points: [(x: Double, y: Double?)], _ style: String) -> String {
        var path = ""
        var isOn = false
        for point in points {
            guard let value = point.y else {
                isOn = false
                continue
            }
            path += "\(isOn ? "L" : "M")\(Self.n(px(point.x))) \(Self.n(py(value)))"
            isOn = true
        }
        return path.isEmpty ? "" : #"<path class="line \#(style)" d="\#(path)"/>"#
    }

    /// The area between two lines that step at each point's end.
    func area(_ points: [(from: Double, to: Double, low: Double, high: Double)], _ style: String) -> String {
        guard points.contains(where: { $0.high > $0.low }) else { return "" }
        var above = ""
        var below = ""
        for point in points {
            above += "L\(Self.n(px(point.from))) \(Self.n(py(point.high)))L\(Self.n(px(point.to))) \(Self.n(py(point.high)))"
            below = "L\(Self.n(px(point.to))) \(Self.n(py(point.low)))L\(Self.n(px(point.from))) \(Self.n(py(point.low)))" + below
        }
        return #"<path class="area \#(style)" d="M\#(above.dropFirst())\#(below)Z"/>"#
    }

    /// A band over the whole height.
    func band(_ from: Double, _ to: Double, _ style: String, title: String) -> String {
        let width = max(2, px(to) - px(from))
        return
            #"<rect class="\#(style)" x="\#(Self.n(px(from)))" y="\#(Self.n(top))" width="\#(Self.n(width))" height="\#(Self.n(height - top - bottom))">"#
            + "<title>\(title.htmlEscaped)</title></rect>"
    }

    /// The whole drawing.
    func svg(_ content: String, label: String) -> String {
        #"<svg viewBox="0 0 \#(Self.n(width)) \#(Self.n(height))" width="\#(Self.n(width))" height="\#(Self.n(height))" role="img" aria-label="\#(label.htmlEscaped)">"#
            + content + "</svg>"
    }
}

extension String {
    /// Safe between tags and in quotes.
    var htmlEscaped: String {
        var text = ""
        for character in self {
            switch character {
            case "&": text += "&amp;"
            case "<": text += "&lt;"
            case ">": text += "&gt;"
            case "\"": text += "&quot;"
            default: text.append(character)
            }
        }
        return text
    }
}
