/// Writes Prometheus' text exposition format, version 0.0.4.
package struct MetricsText {
    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    private(set) var bytes: [UInt8] = []

    mutating func family(_ name: String, help: String, kind: MetricsRegistry.Kind) {
        bytes.append(contentsOf: "# HELP \(name) ".utf8)
        escape(help, quotes: false)
        bytes.append(contentsOf: "\n# TYPE \(name) \(kind.rawValue)\n".utf8)
    }

    mutating func sample(_ name: String, _ labels: [MetricsRegistry.Label], _ value: Double) {
        bytes.append(contentsOf: name.utf8)
        if !labels.isEmpty {
            bytes.append(UInt8(ascii: "{"))
            for (index, label) in labels.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                bytes.append(contentsOf: label.name.utf8)
                bytes.append(contentsOf: "=\"".utf8)
                escape(label.value, quotes: true)
                bytes.append(UInt8(ascii: "\""))
            }
            bytes.append(UInt8(ascii: "}"))
        }
        bytes.append(UInt8(ascii: " "))
        bytes.append(contentsOf: MetricsText.number(value).utf8)
        bytes.append(UInt8(ascii: "\n"))
    }

    mutating func histogram(_ name: String, _ labels: [MetricsRegistry.Label], _ histogram: Histogram) {
        let (cumulative, sum) = histogram.snapshot()
        for (index, count) in cumulative.enumerated() {
            let bound = index < histogram.bounds.count ? MetricsText.number(Double(histogram.bounds[index]) * histogram.scale) : "+Inf"
            sample(name + "_bucket", labels + [(name: "le", value: bound)], Double(count))
        }
        sample(name + "_sum", labels, Double(sum) * histogram.scale)
        sample(name + "_count", labels, Double(cumulative.last ?? 0))
    }

    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if value.rounded() == value, abs(value) < 9_007_199_254_740_992 { return String(Int64(value)) }
        // 0.1 * 1e-9 and the like would show the last bits of a product; twelve digits are more than a clock has.
        let rounded = (value * 1e12).rounded() / 1e12
        return (abs(value) < 1000 ? rounded : value).description
    }

    private mutating func escape(_ text: String, quotes: Bool) {
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\\"): bytes.append(contentsOf: "\\\\".utf8)
            case 0x0A: bytes.append(contentsOf: "\\n".utf8)
            case UInt8(ascii: "\"") where quotes: bytes.append(contentsOf: "\\\"".utf8)
            default: bytes.append(byte)
            }
        }
    }
}
