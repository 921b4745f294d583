import FuzzKit
import Testing

/// The short form of `make fuzz`: always the same cases, so that what fails here fails everywhere.
@Suite("Readers of bytes from outside")
struct FuzzTests {
    @Test(arguments: Fuzz.readers.map(\.name))
    func aReaderTakesOddBytes(_ name: String) throws {
        let reader = try #require(Fuzz.readers.first { $0.name == name })
        let run = try Fuzz.run(reader, seed: 20_260_131) { $0 >= 4_000 }
        #expect(run == 4_000)
    }

    /// A fuzzer that finds nothing because it breaks nothing would pass, too.
    @Test func aFaultyReaderIsFound() throws {
        /// Takes the length that the bytes announce for true.
        struct Trusting: FuzzReader {
            let name = "trusting"
            let what = "a length and a text"
            let examples: [[UInt8]] = [[2, 0x61, 0x62]]
            func violation(_ bytes: [UInt8]) -> String? {
                guard let length = bytes.first, Int(length) < bytes.count else { return "it would read past the end" }
                return nil
            }
        }
        let found = #expect(throws: FuzzViolation.self) { try Fuzz.run(Trusting(), seed: 1) { $0 >= 10_000 } }
        let violation = try #require(found)
        // What is told makes the case again.
        #expect(Fuzz.bytes(Trusting(), seed: violation.seed, number: violation.number) == violation.bytes)
        #expect(Trusting().violation(violation.bytes) == violation.what)
        #expect(Fuzz.bytes(hex: Fuzz.hex(violation.bytes)) == violation.bytes)
        #expect(violation.description.contains("seed 1, case \(violation.number)"))
    }
}
