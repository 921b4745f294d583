extension Int {
    /// With commas between the thousands.
    public var grouped: String {
        var digits = String(magnitude)
        var groups: [String] = []
        while digits.count > 3 {
            groups.insert(String(digits.suffix(3)), at: 0)
            digits.removeLast(3)
        }
        return (self < 0 ? "-" : "") + ([digits] + groups).joined(separator: ",")
    }
}

extension Double {
    /// A whole number with commas between the thousands, or as it is.
    public var grouped: String {
        rounded() == self && magnitude < 1e15 ? Int(self).grouped : String(self)
    }

    /// The shortest form: `99.9`, but `99`.
    var plain: String {
        rounded() == self && magnitude < 1e15 ? String(Int(self)) : String(self)
    }

    /// With so many digits behind the point.
    public func digits(_ count: Int) -> String {
        guard isFinite, magnitude < 1e12 else { return String(self) }
        var scale = 1.0
        for _ in 0..<count { scale *= 10 }
        let scaled = Int((magnitude * scale).rounded())
        let (whole, part) = scaled.quotientAndRemainder(dividingBy: Int(scale))
        let sign = self < 0 && scaled != 0 ? "-" : ""
        return count == 0 ? "\(sign)\(whole)" : "\(sign)\(whole).\(String(Int(scale) + part).dropFirst())"
    }
}
