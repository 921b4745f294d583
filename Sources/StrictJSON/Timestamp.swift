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

    /// This time moved by a duration, to the microsecond below. Beyond 64 bits it stays at their end.
    public func advanced(by duration: Duration) -> Timestamp {
        let (seconds, attoseconds) = duration.components
        let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000)
        let (moved, overflow2) = microsecondsSinceEpoch.addingReportingOverflow(whole)
        let (exact, overflow3) = moved.addingReportingOverflow(attoseconds / 1_000_000_000_000)
        guard !overflow, !overflow2, !overflow3 else { return Timestamp(microsecondsSinceEpoch: duration < .zero ? .min : .max) }
        return Timestamp(microsecondsSinceEpoch: exact)
    }

    /// The time between, in microseconds; negative if the other is the later one. Beyond 64 bits it stays at their end.
    public func microseconds(since other: Timestamp) -> Int64 {
        let (difference, overflow) = microsecondsSinceEpoch.subtractingReportingOverflow(other.microsecondsSinceEpoch)
        guard overflow else { return difference }
        return other.microsecondsSinceEpoch < 0 ? .max : .min
    }

    /// Reads RFC 3339: `2026-01-31T09:30:00Z`, with up to nine digits behind the second (cut to six), in UTC or with an offset like `+09:00`.
    ///
    /// Nil if the text is no such time. A year has four digits, so every time that is read fits 64 bits. The day number of a calendar date is
    /// Howard Hinnant's `days_from_civil` (the proleptic Gregorian calendar).
    public init?(rfc3339 text: String) {
        let bytes = Array(text.utf8)
        guard (20...36).contains(bytes.count) else { return nil }
        /// At most nine digits.
        func number(_ range: Range<Int>) -> Int64? {
            guard range.upperBound <= bytes.count else { return nil }
            var value: Int64 = 0
            for byte in bytes[range] {
                guard (0x30...0x39).contains(byte) else { return nil }
                value = value * 10 + Int64(byte - 0x30)
            }
            return value
        }
        func has(_ character: Unicode.Scalar, at index: Int) -> Bool { index < bytes.count && bytes[index] == UInt8(ascii: character) }
        guard let year = number(0..<4), has("-", at: 4), let month = number(5..<7), has("-", at: 7), let day = number(8..<10),
            has("T", at: 10), let hour = number(11..<13), has(":", at: 13), let minute = number(14..<16), has(":", at: 16),
            let second = number(17..<19), (1...12).contains(month), hour < 24, minute < 60, second < 61
        else { return nil }
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        let monthLength: Int64 = month == 2 ? (isLeap ? 29 : 28) : [4, 6, 9, 11].contains(month) ? 30 : 31
        guard (1...monthLength).contains(day) else { return nil }

        var end = 19
        var microseconds: Int64 = 0
        if has(".", at: 19) {
            end = bytes[20...].firstIndex { !(0x30...0x39).contains($0) } ?? bytes.count
            let digits = end - 20
            guard (1...9).contains(digits), let fraction = number(20..<end) else { return nil }
            microseconds = fraction
            for _ in digits..<max(digits, 6) { microseconds *= 10 }
            for _ in 6..<max(digits, 6) { microseconds /= 10 }
        }
        var offset: Int64 = 0
        if !(has("Z", at: end) && end + 1 == bytes.count) {
            guard has("+", at: end) || has("-", at: end), end + 6 == bytes.count, let hours = number(end + 1..<end + 3),
                has(":", at: end + 3), let minutes = number(end + 4..<end + 6), hours < 24, minutes < 60
            else { return nil }
            offset = (hours * 60 + minutes) * (has("-", at: end) ? -60 : 60)
        }

        let shifted = month <= 2 ? year - 1 : year
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let days = era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
        let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset
        self.init(microsecondsSinceEpoch: seconds * 1_000_000 + microseconds)
    }

    /// RFC 3339 in UTC with six digits of a second: `2026-01-31T09:30:00.123456Z`.
    public var description: String {
        var bytes: [UInt8] = []
        write(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Appends ``description``.
    ///
    /// The calendar date of a day number is Howard Hinnant's `civil_from_days` (the proleptic Gregorian calendar).
    /// Years outside 0 to 9999 have no RFC 3339 form; they are cut to that range's ends.
    public func write(to bytes: inout [UInt8]) {
        let bounded = min(max(microsecondsSinceEpoch, -62_167_219_200_000_000), 253_402_300_799_999_999)
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

        // A time stands several times in what is said of each order: its 27 bytes are made in place and appended together.
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 27) { text in
            Timestamp.put(year, digits: 4, at: 0, behind: UInt8(ascii: "-"), in: text)
            Timestamp.put(month, digits: 2, at: 5, behind: UInt8(ascii: "-"), in: text)
            Timestamp.put(day, digits: 2, at: 8, behind: UInt8(ascii: "T"), in: text)
            Timestamp.put(second / 3_600, digits: 2, at: 11, behind: UInt8(ascii: ":"), in: text)
            Timestamp.put(second / 60 % 60, digits: 2, at: 14, behind: UInt8(ascii: ":"), in: text)
            Timestamp.put(second % 60, digits: 2, at: 17, behind: UInt8(ascii: "."), in: text)
            Timestamp.put(microsecond, digits: 6, at: 20, behind: UInt8(ascii: "Z"), in: text)
            bytes.append(contentsOf: text)
        }
    }

    /// Puts a number with so many digits at a place, and a byte behind it.
    @inline(__always)
    private static func put(_ value: Int64, digits: Int, at place: Int, behind byte: UInt8, in text: UnsafeMutableBufferPointer<UInt8>) {
        var rest = UInt64(truncatingIfNeeded: value)
        for index in stride(from: place + digits - 1, through: place, by: -1) {
            let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
            text[index] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: digit)
            rest = quotient
        }
        text[place + digits] = byte
    }
}
