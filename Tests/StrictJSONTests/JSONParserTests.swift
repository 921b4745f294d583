import SeededRandom
import Testing

@testable import StrictJSON

@Suite struct JSONParserTests {
    @Test(
        arguments: [
            ("null", JSONValue.null), ("true", true), (" false\r\n\t", false), ("0", 0), ("-0", 0), ("42", 42), ("-7", -7),
            ("9223372036854775807", .int(.max)), ("-9223372036854775808", .int(.min)), ("1.5", .double(1.5)), ("1e3", .double(1000)),
            ("1E+2", .double(100)), ("-0.5e-1", .double(-0.05)), ("1.0", .double(1)), ("\"\"", ""), ("\"a\"", "a"),
            (#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"), (#""\u0041\ud83d\ude00""#, "A😀"), ("\"한글 é\"", "한글 é"), ("[]", []),
            ("{}", [:]),
            ("[1,[2],{}]", [1, [2], [:]]), (#" { "a" : 1 , "b" : [ true , null ] } "#, ["a": 1, "b": [true, nil]]), (#"{"":0}"#, ["": 0]),
            ("\"\u{7f}\"", "\u{7f}"), (#"{"a":{"a":1},"b":{"a":2}}"#, ["a": ["a": 1], "b": ["a": 2]]),
        ] as [(String, JSONValue)]
    )
    func wellFormed(text: String, value: JSONValue) throws {
        #expect(try JSONDocument(text.utf8).value == value)
    }

    @Test func tooLargeForAnIntegerIsStillANumber() throws {
        #expect(try JSONDocument("9223372036854775808".utf8).value == .double(9_223_372_036_854_775_808))
        #expect(try JSONDocument("-9223372036854775809".utf8).value == .double(-9_223_372_036_854_775_808))
    }

    @Test(arguments: [
        // Nothing, or not all of it.
        "", " ", "{", "[", "\"", "{\"a\"", "{\"a\":", "{\"a\":1", "[1", "[1,", "tru", "-", "1.", "1e", "1e+", "\"\\", "\"\\u00",
        "\"\\ud83d",
        // Words and numbers.
        "nul", "True", "NaN", "Infinity", "-Infinity", "+1", "01", "-01", ".5", "1.e3", "0x10", "1_000", "--1", "1e1.5", "tru\u{0}",
        // Commas, colons, brackets.
        "[1,]", "[,1]", "[1 2]", "{\"a\":1,}", "{,}", "{\"a\" 1}", "{\"a\"::1}", "{a:1}", "{'a':1}", "{1:1}", "[1}", "{\"a\":1]", "]", "}",
        ":", ",",
        // Behind the value.
        "1 2", "{} {}", "null,", "[] //", "{}x", "/* */ 1", "1 // x",
        // Strings.
        "'a'", "\"\u{1}\"", "\"\n\"", "\"\t\"", "\"\\x41\"", "\"\\u12g4\"", "\"\\U0041\"", "\"a", "\"\\\"",
        // Half surrogate pairs.
        #""\ud83d""#, #""\ude00""#, #""\ud83d\u0041""#, #""\ud83dx""#, #""\ud83d\n""#,
        // The same name twice.
        #"{"a":1,"a":1}"#, #"{"a":1,"b":2,"a":3}"#, #"{"a":1,"\u0061":2}"#, #"{"x":{"a":1,"a":2}}"#, #"[{"a":1,"a":2}]"#, #"{"":1,"":2}"#,
        // A byte order mark.
        "\u{feff}{}",
    ])
    func malformed(text: String) {
        #expect(throws: JSONSyntaxError.self) { try JSONDocument(text.utf8) }
    }

    @Test(
        arguments: [
            [0xC0, 0xAF], [0xC1, 0x80], [0xE0, 0x80, 0x80], [0xED, 0xA0, 0x80], [0xF0, 0x80, 0x80, 0x80], [0xF4, 0x90, 0x80, 0x80],
            [0xF5, 0x80, 0x80, 0x80],
            [0x80], [0xC2], [0xE2, 0x82], [0xF0, 0x9F, 0x98], [0xFF], [0xFE], [0xE2, 0x28, 0xA1], [0xC2, 0x22],
        ] as [[UInt8]]
    )
    func notUTF8(bytes: [UInt8]) {
        #expect(throws: JSONSyntaxError.self) { try JSONDocument([0x22] + bytes + [0x22]) }
        #expect(throws: JSONSyntaxError.self) { try JSONDocument([0x7B, 0x22] + bytes + [0x22, 0x3A, 0x31, 0x7D]) }
        #expect(throws: JSONSyntaxError.self) { try JSONDocument(bytes) }
    }

    @Test func reasonsAndOffsets() {
        func fault(_ text: String) -> JSONSyntaxError? {
            do {
                _ = try JSONDocument(text.utf8)
                return nil
            } catch {
                return error
            }
        }
        #expect(fault(#"{"a":1,"a":2}"#)?.reason == .duplicateName)
        #expect(fault("[1") == JSONSyntaxError(reason: .unexpectedEnd, offset: 2))
        #expect(fault("[x]") == JSONSyntaxError(reason: .unexpectedByte, offset: 1))
        #expect(fault("1 1") == JSONSyntaxError(reason: .trailingBytes, offset: 2))
        #expect(fault(#""\ud800""#)?.reason == .invalidText)
    }

    @Test func nestingIsBoundedAt32() throws {
        func nested(_ depth: Int, _ open: String, _ close: String) -> String {
            String(repeating: open, count: depth) + "1" + String(repeating: close, count: depth)
        }
        _ = try JSONDocument(nested(32, "[", "]").utf8)
        _ = try JSONDocument(nested(32, "{\"a\":", "}").utf8)
        for text in [nested(33, "[", "]"), nested(33, "{\"a\":", "}"), String(repeating: "[", count: 60_000)] {
            do {
                _ = try JSONDocument(text.utf8)
                Issue.record("accepted \(text.prefix(40))…")
            } catch {
                #expect(error.reason == .tooDeep)
            }
        }
    }

    @Test func manyNamesStayLinearAndDuplicatesAreFound() throws {
        let names = (0..<5000).map { "\"n\($0)\":1" }
        _ = try JSONDocument("{\(names.joined(separator: ","))}".utf8)
        // The duplicate of the first, of the last, and in another spelling.
        for duplicate in ["\"n0\":2", "\"n4999\":2", #""\u006e17":2"#] {
            #expect(throws: JSONSyntaxError.self) { try JSONDocument("{\((names + [duplicate]).joined(separator: ","))}".utf8) }
        }
        // Around the change from comparing to hashing.
        for count in 14...20 {
            let some = names.prefix(count).joined(separator: ",")
            _ = try JSONDocument("{\(some)}".utf8)
            #expect(throws: JSONSyntaxError.self) { try JSONDocument("{\(some),\"n\(count - 1)\":1}".utf8) }
        }
    }

    @Test func everyPrefixOfATextIsMalformed() throws {
        let text = Array(#"{"productId":1,"tags":["a","é😀\ud83d\ude00"],"o":{"x":null,"y":-1.5e3}}"#.utf8)
        _ = try JSONDocument(text)
        for count in 0..<text.count {
            #expect(throws: JSONSyntaxError.self) { try JSONDocument(text[..<count]) }
        }
    }

    @Test func whatIsWrittenIsReadBack() throws {
        var random = SplitMix64(seed: 7)
        for _ in 0..<500 {
            let value = randomValue(depth: 0, using: &random)
            var writer = JSONWriter()
            writer.value(value)
            #expect(try JSONDocument(writer.bytes).value == value)
        }
    }

    /// Random bytes, and well-formed texts with random damage: every input is either refused or a value that is written and read back.
    @Test(arguments: [1, 2, 3])
    func noInputCrashes(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let alphabet = Array(#"{}[]:,"\u0123456789abcdef-+.eE truefalsnl"#.utf8) + [0x00, 0x0A, 0xC3, 0xA9, 0xED, 0xA0, 0xFF]
        for round in 0..<20_000 {
            var bytes: [UInt8] = []
            if round % 2 == 0 {
                for _ in 0..<Int.random(in: 0...40, using: &random) { bytes.append(alphabet.randomElement(using: &random) ?? 0) }
            } else {
                var writer = JSONWriter()
                writer.value(randomValue(depth: 0, using: &random))
                bytes = writer.bytes
                for _ in 0..<Int.random(in: 1...3, using: &random) {
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
            }
            guard let document = try? JSONDocument(bytes) else { continue }
            var writer = JSONWriter()
            writer.value(document.value)
            _ = try JSONDocument(writer.bytes)
        }
    }

    private func randomValue(depth: Int, using random: inout SplitMix64) -> JSONValue {
        switch Int.random(in: 0...(depth > 4 ? 4 : 6), using: &random) {
        case 0: return .null
        case 1: return .bool(Bool.random(using: &random))
        case 2: return .int(Int64.random(in: .min ... .max, using: &random))
        case 3: return .double(Double(Int.random(in: -1000...1000, using: &random)) + 0.5)
        case 4:
            let scalars = (0..<Int.random(in: 0...6, using: &random)).map { _ in
                Unicode.Scalar(UInt32.random(in: 0...0x10FFFF, using: &random)) ?? "?"
            }
            return .string(String(String.UnicodeScalarView(scalars)))
        case 5: return .array((0..<Int.random(in: 0...4, using: &random)).map { _ in randomValue(depth: depth + 1, using: &random) })
        default:
            return .object(
                (0..<Int.random(in: 0...4, using: &random)).map { JSONMember("m\($0)", randomValue(depth: depth + 1, using: &random)) }
            )
        }
    }
}
