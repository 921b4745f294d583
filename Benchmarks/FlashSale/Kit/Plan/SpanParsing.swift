/// Why a setting could not be understood, in words for the person who typed it.
public struct PlanError: Error, Equatable, CustomStringConvertible {
    /// What was wrong and what is expected.
    public let description: String

    /// - Parameter description: what was wrong and what is expected.
    public init(_ description: String) {
        self.description = description
    }
}

extension Duration {
    /// Reads `4s`, `1.5s`, `250ms` or `2m`. At most one day, never negative.
    /// - Throws: `PlanError` that names the text and the expected form.
    public init(span text: String) throws(PlanError) {
        let units: [(suffix: String, seconds: Double)] = [("ms", 0.001), ("s", 1), ("m", 60)]
        for unit in units where text.hasSuffix(unit.suffix) {
            let number = text.dropLast(unit.suffix.count)
            guard let value = Double(number), value.isFinite, value >= 0, value * unit.seconds <= 86_400 else { break }
            self = .seconds(value * unit.seconds)
            return
        }
        throw PlanError("'\(text)' is no duration: write 4s, 1.5s, 250ms or 2m")
    }

    /// The length in seconds.
    public var inSeconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds) + Double(attoseconds) / 1e18
    }
}

/// Orders a second that arrive whether or not earlier ones were answered.
public struct ArrivalRate: Equatable, Sendable {
    /// Arrivals a second, above 0 and at most 1,000,000.
    public let perSecond: Double

    /// Reads `8000/s`, `8000`, or `500/m`.
    /// - Throws: `PlanError` that names the text and the expected form.
    public init(_ text: String) throws(PlanError) {
        var number = Substring(text)
        var seconds = 1.0
        if number.hasSuffix("/s") {
            number = number.dropLast(2)
        } else if number.hasSuffix("/m") {
            number = number.dropLast(2)
            seconds = 60
        }
        guard let value = Double(number), value.isFinite, value > 0, value / seconds <= 1_000_000 else {
            throw PlanError("'\(text)' is no rate: write 8000/s, above 0 and at most 1000000/s")
        }
        perSecond = value / seconds
    }
}
