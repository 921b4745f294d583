import StrictJSON
import Testing

@Suite("Times that somebody else wrote")
struct TimestampTests {
    @Test(
        "RFC 3339 is read, to the microsecond",
        arguments: [
            ("1970-01-01T00:00:00Z", 0), ("1970-01-01T00:00:00.000001Z", 1), ("1969-12-31T23:59:59.999999Z", -1),
            ("2026-01-31T09:30:00.123456789Z", 1_769_851_800_123_456), ("2026-01-31T09:30:00.1Z", 1_769_851_800_100_000),
            ("2026-01-31T18:30:00+09:00", 1_769_851_800_000_000), ("2026-01-31T04:00:00.5-05:30", 1_769_851_800_500_000),
            ("2000-02-29T00:00:00Z", 951_782_400_000_000), ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000_000), ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        ] as [(String, Int64)]
    )
    func reads(_ text: String, _ microseconds: Int64) {
        #expect(Timestamp(rfc3339: text)?.microsecondsSinceEpoch == microseconds)
    }

    @Test(
        "everything else is none, whatever it claims",
        arguments: [
            "", "Z", "2026-01-31", "2026-01-31T09:30:00", "2026-01-31 09:30:00Z", "2026-1-31T09:30:00.00Z", "2026-01-31T09:30:00.Z",
            "2026-01-31T09:30:00.1234567890Z", "2026-01-31T09:30:00ZZ", "2026-01-31T09:30:00.1", "2026-01-31T09:30:00+0900",
            "2026-01-31T09:30:00+24:00", "2026-01-31T09:30:00+09:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T09:60:00Z",
            "2026-01-31T09:30:61Z", "300000-01-01T00:00:00Z", "+300000-01-01T00:00:00Z", "-0001-01-01T00:00:00.000Z",
            "99999999999999999-01-01T00:00:00Z", "292277026596-12-04T15:30:07Z", "２０２６-01-31T09:30:00Z", "2026-01-31T09:30:00.\u{0}00Z",
            String(repeating: "9", count: 36),
        ]
    )
    func refuses(_ text: String) {
        #expect(Timestamp(rfc3339: text) == nil)
    }

    @Test("any bytes at all are read or refused")
    func anything() {
        var state: UInt64 = 42
        func random(_ count: UInt64) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % count)
        }
        let alphabet = Array("0123456789-:.TZ+ x".unicodeScalars)
        for _ in 0..<20_000 {
            var text = Array("2026-01-31T09:30:00.123456+09:00".unicodeScalars)
            for _ in 0...random(6) {
                let place = random(UInt64(text.count))
                switch random(3) {
                case 0: text[place] = alphabet[random(UInt64(alphabet.count))]
                case 1: text.insert(alphabet[random(UInt64(alphabet.count))], at: place)
                default: text.remove(at: place)
                }
            }
            let written = String(String.UnicodeScalarView(text))
            if let time = Timestamp(rfc3339: written) { #expect(Timestamp(rfc3339: time.description) == time, "\(written)") }
        }
    }

    @Test("differences and sums stay within 64 bits")
    func ends() {
        let extremes = [Int64.min, .min + 1, -1, 0, 1, .max - 1, .max].map { Timestamp(microsecondsSinceEpoch: $0) }
        for one in extremes {
            for other in extremes {
                let difference = one.microseconds(since: other)
                #expect((difference > 0) == (one > other) && (difference < 0) == (one < other))
            }
            for duration in [Duration.zero, .seconds(Int64.max), .seconds(Int64.min), .microseconds(1), .microseconds(-1)] {
                let moved = one.advanced(by: duration)
                #expect(duration < .zero ? moved <= one : moved >= one)
            }
        }
        #expect(Timestamp(microsecondsSinceEpoch: .min).microseconds(since: Timestamp(microsecondsSinceEpoch: 1)) == .min)
        #expect(Timestamp(microsecondsSinceEpoch: 1).microseconds(since: Timestamp(microsecondsSinceEpoch: .min)) == .max)
        #expect(Timestamp(microsecondsSinceEpoch: 5).microseconds(since: Timestamp(microsecondsSinceEpoch: 7)) == -2)
    }
}
