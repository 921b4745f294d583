import StrictJSON
import Testing

@testable import APIErrors

@Suite struct JSONObjectReaderTests {
    enum Color: String, CaseIterable { case red = "RED", blue = "BLUE" }

    private func reader(_ text: String) throws -> JSONObjectReader { try JSONObjectReader(text.utf8) }

    private func fault(_ read: () throws -> Void) -> APIError? {
        do {
            try read()
            return nil
        } catch {
            return error as? APIError
        }
    }

    @Test func reads() throws {
        let body = try reader(
            #"{"ignored":[1,{"quantity":9}],"quantity":3,"name":"Key\u0062oard","color":"BLUE","on":true,"none":null,"items":[{"id":1},{"id":2}],"o":{"x":5}}"#
        )
        #expect(try body.int("quantity", in: 1...10) == 3)
        #expect(try body.string("name", length: 1...8) == "Keyboard")
        #expect(try body.choice("color", Color.self) == .blue)
        #expect(try body.optionalInt("none", in: 0...1) == nil)
        #expect(try body.optionalString("missing", length: 1...2) == nil)
        #expect(!body.contains("none"))
        #expect(body.contains("on"))
        #expect(try body.objects("items", count: 1...2).map { try $0.int("id", in: 1...9) } == [1, 2])
        #expect(body.value("o") == ["x": 5])
    }

    @Test(arguments: ["0", "11", "1.5", "1.0", "1e0", "1e3", "\"3\"", "true", "[]", "9223372036854775808", "-9223372036854775809"])
    func notAWholeNumberInRange(value: String) throws {
        let body = try reader("{\"quantity\":\(value)}")
        let error = fault { _ = try body.int("quantity", in: 1...10) }
        #expect(error?.code == .validationError)
        #expect(error?.details == ["field": "quantity", "minimum": 1, "maximum": 10])
    }

    @Test func missingAndNullNameTheField() throws {
        for text in ["{}", "{\"quantity\":null}"] {
            let body = try reader(text)
            #expect(fault { _ = try body.int("quantity", in: 1...10) } == .missing(field: "quantity"))
            #expect(fault { _ = try body.string("quantity", length: 1...10) } == .missing(field: "quantity"))
        }
    }

    @Test func texts() throws {
        let body = try reader(
            #"{"empty":"","long":"abcd","control":"a\u0000b","tab":"a\tb","c1":"\u0085","number":5,"korean":"한글","color":"GREEN"}"#
        )
        #expect(fault { _ = try body.string("empty", length: 1...3) }?.details["maximum"] == 3)
        #expect(fault { _ = try body.string("long", length: 1...3) }?.details["field"] == "long")
        for name in ["control", "tab", "c1"] as [StaticString] {
            #expect(fault { _ = try body.string(name, length: 1...10) }?.message == .fieldControl)
        }
        #expect(fault { _ = try body.string("number", length: 1...3) }?.message == .fieldNotText)
        #expect(try body.string("korean", length: 2...2) == "한글")
        #expect(fault { _ = try body.choice("color", Color.self) }?.details["allowed"] == ["RED", "BLUE"])
    }

    @Test func listsAreBoundedAndNameTheirElements() throws {
        let body = try reader(#"{"items":[{"id":1},{"id":0}],"mixed":[1],"empty":[]}"#)
        let items = try body.objects("items", count: 1...5)
        #expect(fault { _ = try items[1].int("id", in: 1...5) }?.details["field"] == "items[1].id")
        #expect(fault { _ = try body.objects("items", count: 1...1) } != nil)
        #expect(fault { _ = try body.objects("mixed", count: 1...5) } != nil)
        #expect(fault { _ = try body.objects("empty", count: 1...5) } != nil)
    }

    @Test(arguments: ["[]", "1", "null", "\"a\""])
    func notAnObject(text: String) {
        #expect(fault { _ = try reader(text) }?.message == .notAnObject)
    }

    @Test func malformedSaysWhere() {
        let error = fault { _ = try reader(#"{"a":1,"a":2}"#) }
        #expect(error?.code == .validationError)
        #expect(error?.details["reason"] == "duplicateName")
    }
}

@Suite struct JSONWriterTests {
    @Test func writes() {
        var json = JSONWriter()
        json.object { json in
            json.member("id", 7)
            json.member("least", Int64.min)
            json.member("text", "a\"\\\n\u{1}한")
            json.member("none", String?.none)
            json.member("yes", true)
            json.member("half", 0.5)
            json.member("noNumber", Double.nan)
            json.array("list", [1, 2]) { $0.value($1) }
            json.object("o") { $0.member("at", Timestamp(microsecondsSinceEpoch: 0)) }
            json.array("empty", [Int]()) { $0.value($1) }
        }
        #expect(
            json.string
                == #"{"id":7,"least":-9223372036854775808,"text":"a\"\\\n\u0001한","none":null,"yes":true,"half":0.5,"noNumber":null,"list":[1,2],"o":{"at":"1970-01-01T00:00:00.000000Z"},"empty":[]}"#
        )
    }

    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00.000000Z"), (-1, "1969-12-31T23:59:59.999999Z"), (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_767_225_599_123_456, "2025-12-31T23:59:59.123456Z"), (-62_167_219_200_000_000, "0000-01-01T00:00:00.000000Z"),
            (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"), (.max, "9999-12-31T23:59:59.999999Z"),
            (.min, "0000-01-01T00:00:00.000000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] as [(Int64, String)]
    )
    func timestamps(microseconds: Int64, text: String) {
        #expect(Timestamp(microsecondsSinceEpoch: microseconds).description == text)
    }
}
