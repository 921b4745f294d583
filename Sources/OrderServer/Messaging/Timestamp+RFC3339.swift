import ServerKit

extension Timestamp {
    /// Reads RFC 3339 in UTC, as the servers write it: `2026-01-31T09:30:00Z`, with or without digits behind the second.
    ///
    /// The day number of a calendar date is Howard Hinnant's `days_from_civil` (the proleptic Gregorian calendar).
    init?(rfc3339 text: String) {
        let bytes = Array(text.utf8)
        guard (20...36).contains(bytes.count), bytes.last == UInt8(ascii: "Z") else { return nil }
        func number(_ range: Range<Int>) -> Int64? {
            var value: Int64 = 0
            for byte in bytes[range] {
                guard (0x30...0x39).contains(byte) else { return nil }
                value = value * 10 + Int64(byte - 0x30)
            }
            return value
        }
        guard let year = number(0..<4), let month = number(5..<7), let day = number(8..<10), let hour = number(11..<13),
            let minute = number(14..<16), let second = number(17..<19), (1...12).contains(month), (1...31).contains(day), hour < 24,
            minute < 60, second < 61, bytes[4] == UInt8(ascii: "-"), bytes[7] == UInt8(ascii: "-"), bytes[10] == UInt8(ascii: "T"),
            bytes[13] == UInt8(ascii: ":"), bytes[16] == UInt8(ascii: ":")
        else { return nil }
        var microseconds: Int64 = 0
        if bytes.count > 20 {
            let digits = bytes.count - 21
            guard bytes[19] == UInt8(ascii: "."), (1...9).contains(digits), let fraction = number(20..<20 + digits) else { return nil }
            microseconds = fraction
            for _ in digits..<max(digits, 6) { microseconds *= 10 }
            for _ in 6..<max(digits, 6) { microseconds /= 10 }
        }
        let shifted = month <= 2 ? year - 1 : year
        let era = shifted / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let days = era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
        self.init(microsecondsSinceEpoch: (days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000_000 + microseconds)
    }
}
