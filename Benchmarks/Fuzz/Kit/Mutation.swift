import SeededRandom
import StockGateProof

/// Makes odd bytes out of well-formed ones.
enum Mutation {
    /// Numbers at which readers break: the ends of the integers, and what is beyond them.
    static let numbers = [
        "0", "-0", "1", "-1", "2147483647", "-2147483648", "4294967296", "9007199254740993", "9223372036854775807", "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809", "18446744073709551615", "1e3", "1.0", "1e400", "-1e-400", "0.1", "00", "01", "1000000000", "1000000001",
        "340282366920938463463374607431768211456",
    ]
    static let words = [
        "null", "true", "false", "[]", "{}", "[[]]", "\"\"", "\"\\u0000\"", "\"\\ud800\"", "\"\\ud83d\\ude00\"",
        "\"300000-01-01T00:00:00Z\"", "\"+300000-01-01T00:00:00Z\"",
        "\"0000-01-01T00:00:00Z\"", "\"9999-12-31T23:59:59.999999999Z\"", "\"2026-02-30T00:00:00Z\"", "\"DEC-\"",
        "\"DEC-1.9223372036854775807\"", "\"DEC-1.1\"", "\"INC-7\"",
        "{\"a\":{\"a\":{\"a\":[1,2,3]}}}", "nan", "\"COMMITTED\"", "\"REFUSED\"", "\"\u{1F600}\"", "\"\\\"\"",
    ]
    static let bytes: [[UInt8]] = [
        [0], [0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xE2, 0x82], [0x0D, 0x0A], [0x22], [0x5C], [0x7F], [0x80],
        [0x0A], [0x2C], [0x3A],
    ]

    /// One to eight changes of one of the examples.
    static func mutated(_ examples: [[UInt8]], _ random: inout SplitMix64) -> [UInt8] {
        var bytes = pick(examples, &random)
        for _ in 0..<Int.random(in: 1...8, using: &random) { change(&bytes, examples, &random) }
        return bytes
    }

    private static func change(_ bytes: inout [UInt8], _ examples: [[UInt8]], _ random: inout SplitMix64) {
        guard !bytes.isEmpty else { return bytes = pick(self.bytes, &random) }
        let place = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<14, using: &random) {
        case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 1: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 2: bytes.insert(contentsOf: pick(self.bytes, &random), at: place)
        case 3: bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 1...16, using: &random)))
        case 4:
            let part = Array(bytes[place..<min(bytes.count, place + Int.random(in: 1...64, using: &random))])
            bytes.insert(contentsOf: part, at: Int.random(in: 0...bytes.count, using: &random))
        case 5: bytes.removeLast(bytes.count - place)
        case 6:
            let other = pick(examples, &random)
            bytes = bytes[..<place] + other.suffix(Int.random(in: 0...other.count, using: &random))
        case 7, 8, 9: replaceNumber(&bytes, from: place, with: Array(pick(numbers, &random).utf8))
        case 10, 11: replaceValue(&bytes, from: place, with: Array(pick(Bool.random(using: &random) ? words : numbers, &random).utf8))
        case 12:
            // Eight bytes that are an extreme number in binary.
            let number = pick(
                [Int64.min, .max, -1, 0, 1, Int64(Int32.max), Int64(Int32.min), .max - 946_684_800_000_000, .min + 1],
                &random
            )
            let word = withUnsafeBytes(of: number.bigEndian) { Array($0) }
            bytes.replaceSubrange(place..<min(bytes.count, place + 8), with: word)
        default:
            // Deep or long.
            let piece = pick([Array("[".utf8), Array("{\"a\":".utf8), Array("*1\r\n".utf8), [0x61]], &random)
            bytes.insert(contentsOf: Array(repeatElement(piece, count: Int.random(in: 1...80, using: &random)).joined()), at: place)
        }
        // Long cases show nothing that shorter ones do not.
        if bytes.count > 16_384 { bytes.removeLast(bytes.count - 16_384) }
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }

    /// Replaces the first run of digits from `place` on.
    private static func replaceNumber(_ bytes: inout [UInt8], from place: Int, with number: [UInt8]) {
        guard let start = bytes[place...].firstIndex(where: isDigit) else { return }
        let end = bytes[start...].firstIndex { !isDigit($0) } ?? bytes.count
        bytes.replaceSubrange(start..<end, with: number)
    }

    /// Replaces what stands between the next colon and the next comma or bracket.
    private static func replaceValue(_ bytes: inout [UInt8], from place: Int, with value: [UInt8]) {
        guard let colon = bytes[place...].firstIndex(of: UInt8(ascii: ":")) else { return }
        let rest = bytes[(colon + 1)...]
        let end = rest.firstIndex { [UInt8(ascii: ","), UInt8(ascii: "}"), UInt8(ascii: "]")].contains($0) } ?? bytes.count
        bytes.replaceSubrange(colon + 1..<end, with: value)
    }

    static func pick<Element>(_ elements: [Element], _ random: inout SplitMix64) -> Element {
        // Lists are literals or a reader's examples, and never empty; a reader without examples stops at its first case.
        elements[Int.random(in: 0..<elements.count, using: &random)]
    }
}

extension [UInt8] {
    /// A number that follows from the bytes, for what a check chooses.
    var seed: UInt64 { reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 } }
}
