// What the fuzzing of a reader is.
//
// A case is bytes, made from a seed and the case's number, and a check takes all its choices from those bytes. So the bytes alone show a violation, and
// reader, seed and number make it again. For all readers there must be no trap, no end of the process and no endless loop; each reader says itself what must
// hold beyond that.
//
// The checks use internals of the modules, which only debug builds expose: a release build has no readers.

import SeededRandom
import StockGateProof

/// One reader of bytes from outside, and what must hold for it.
public protocol FuzzReader: Sendable {
    /// A short name, such as `json`.
    var name: String { get }
    /// What the reader reads, in words.
    var what: String { get }
    /// Well-formed inputs that cases are made from.
    var examples: [[UInt8]] { get }
    /// What is wrong with what the reader made of these bytes; nil if nothing is.
    func violation(_ bytes: [UInt8]) -> String?
}

/// A case that broke something.
public struct FuzzViolation: Error, Sendable, CustomStringConvertible {
    /// The reader's name.
    public var reader: String
    /// What the case's bytes were made from, together with `number`.
    public var seed: UInt64
    /// Which case of the seed it was.
    public var number: UInt64
    /// What the reader was given.
    public var bytes: [UInt8]
    /// What is wrong.
    public var what: String

    /// Makes a violation.
    public init(reader: String, seed: UInt64, number: UInt64, bytes: [UInt8], what: String) {
        self.reader = reader
        self.seed = seed
        self.number = number
        self.bytes = bytes
        self.what = what
    }

    /// All of it, the bytes as digits and as a text.
    public var description: String {
        "\(reader), seed \(seed), case \(number): \(what)\nbytes: \(Fuzz.hex(bytes))\ntext:  \(Fuzz.shown(bytes))"
    }
}

/// Makes cases, and runs them.
public enum Fuzz {
    /// The bytes of one case.
    public static func bytes(_ reader: some FuzzReader, seed: UInt64, number: UInt64) -> [UInt8] {
        var random = SplitMix64(seed: seed &+ number &* 0x9E37_79B9_7F4A_7C15)
        return Mutation.mutated(reader.examples, &random)
    }

    /// Runs cases until `isOver`, which is asked before each of them.
    /// - Parameter isOver: gets the number of the case that would be next
    /// - Returns: how many were run
    /// - Throws: the first violation
    public static func run(
        _ reader: some FuzzReader,
        seed: UInt64,
        isOver: (UInt64) -> Bool
    ) throws(FuzzViolation) -> UInt64 {
        // The examples themselves first: a reader that refuses what is well-formed is told at once.
        for (index, example) in reader.examples.enumerated() {
            guard let what = reader.violation(example) else { continue }
            throw FuzzViolation(reader: reader.name, seed: seed, number: UInt64(index), bytes: example, what: "an example: \(what)")
        }
        var number: UInt64 = 0
        while !isOver(number) {
            let bytes = self.bytes(reader, seed: seed, number: number)
            if let what = reader.violation(bytes) {
                throw FuzzViolation(reader: reader.name, seed: seed, number: number, bytes: bytes, what: what)
            }
            number += 1
        }
        return number
    }

    /// All readers; none in a release build.
    public static var readers: [any FuzzReader] {
        #if DEBUG
            [
                JSONFuzz(), CommandFuzz(), ResultFuzz(), EventFuzz(), ReplyFuzz(), GateReplyFuzz(), RowFuzz(), ContentFuzz(),
            ]
        #else
            []
        #endif
    }

    /// Hexadecimal digits of bytes.
    public static func hex(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef")
        return String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }

    /// Bytes out of hexadecimal digits; nil if they are none.
    public static func bytes(hex: String) -> [UInt8]? {
        let digits = hex.utf8.map { Character(UnicodeScalar($0)).hexDigitValue }
        guard digits.count.isMultiple(of: 2) else { return nil }
        var bytes: [UInt8] = []
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = digits[index], let low = digits[index + 1] else { return nil }
            bytes.append(UInt8(high << 4 | low))
        }
        return bytes
    }

    static func shown(_ bytes: [UInt8]) -> String {
        String(decoding: bytes.prefix(2_000), as: UTF8.self).unicodeScalars
            .map { $0.properties.generalCategory == .control ? "\\u{\(String($0.value, radix: 16))}" : String($0) }.joined()
    }
}
