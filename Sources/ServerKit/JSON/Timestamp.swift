import FoundationEssentials

/// A point in time: microseconds since 1970-01-01T00:00:00Z, as PostgreSQL's `timestamptz` keeps them.
public struct Timestamp: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// Microseconds since 1970-01-01T00:00:00Z; negative before.
    public var microsecondsSinceEpoch: Int64

    /// Makes a time from microseconds since 1970-01-01T00:00:00Z.
    public init(microsecondsSinceEpoch: Int64) {
        self.microsecondsSinceEpoch = microsecondsSinceEpoch
    }

    /// The system clock's time.
    public static var now: Timestamp {
        Timestamp(microsecondsSinceEpoch: Int64(Date().timeIntervalSince1970 * 1_000_000))
    }

    /// The earlier time is the smaller.
    public static func < (one: Timestamp, other: Timestamp) -> Bool {
        one.microsecondsSinceEpoch < other.microsecondsSinceEpoch
    }

    /// This time moved by a duration, to the microsecond below.
    public func advanced(by duration: Duration) -> Timestamp {
        let (seconds, attoseconds) = duration.components
        return Timestamp(microsecondsSinceEpoch: self.microsecondsSinceEpoch + seconds * 1_000_000 + attoseconds / 1_000_000_000_000)
    }

    /// RFC 3339 in UTC with six digits of a second: `2026-01-31T09:30:00.123456Z`.
    public var description: String {
        var bytes: [UInt8] = []
        self.write(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Appends ``description``.
    ///
    /// The calendar date of a day number is Howard Hinnant's `civil_from_days` (the proleptic Gregorian calendar).
    /// Years outside 0 to 9999 have no RFC 3339 form; they are cut to that range's ends.
    public func write(to bytes: inout [UInt8]) {
        let bounded = min(max(self.microsecondsSinceEpoch, -62_167_219_200_000_000), 253_402_300_799_999_999)
        let secondsOfTime = bounded >= 0 ? bounded / 1_000_000 : -((-bounded + 999_999) / 1_000_000)
        let microsecond = bounded - secondsOfTime * 1_000_000
        let days = secondsOfTime >= 0 ? secondsOfTime / 86_400 : -((-secondsOfTime + 86_399) / 86_400)
        let second = secondsOfTime - days * 86_400

        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)

        Timestamp.append(year, digits: 4, to: &bytes)
        bytes.append(UInt8(ascii: "-"))
        Timestamp.append(month, digits: 2, to: &bytes)
        bytes.append(UInt8(ascii: "-"))
        Timestamp.append(day, digits: 2, to: &bytes)
        bytes.append(UInt8(ascii: "T"))
        Timestamp.append(second / 3_600, digits: 2, to: &bytes)
        bytes.append(UInt8(ascii: ":"))
        Timestamp.append(second / 60 % 60, digits: 2, to: &bytes)
        bytes.append(UInt8(ascii: ":"))
        Timestamp.append(second % 60, digits: 2, to: &bytes)
        bytes.append(UInt8(ascii: "."))
        Timestamp.append(microsecond, digits: 6, to: &bytes)
        bytes.append(UInt8(ascii: "Z"))
    }

    private static func append(_ value: Int64, digits: Int, to bytes: inout [UInt8]) {
        let start = bytes.count
        var rest = value
        for _ in 0..<digits {
            bytes.append(UInt8(ascii: "0") + UInt8(rest % 10))
            rest /= 10
        }
        bytes[start...].reverse()
    }
}
