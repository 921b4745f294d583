import APIErrors
import StrictJSON

#if DEBUG
    @testable import ServerKit
    import StockGateProof

    /// The strict parser, the typed reader and the writer of JSON, and times in texts.
    struct JSONFuzz: FuzzReader {
        let name = "json"
        let what = "JSON of any shape: parser, typed reader, writer; times"
        let examples: [[UInt8]] = [
            #"{"a":1,"b":[true,false,null,-0.5e-3,"x\n\u00e9\ud83d\ude00"],"c":{"d":"2026-01-31T09:30:00.123456Z","e":9223372036854775807}}"#,
            #"[1,2.5,{"a":[[[]]]},"\"\\\/\b\f\n\r\t"]"#, #""2026-01-31T09:30:00+09:00""#, "-12.5E+10",
            #"{"a":{"a":{"a":1}},"items":[{"a":1},{"a":"DEC-7"}]}"#,
            #"{"a":"1","b":"2","c":"3","d":"4","e":"5","f":"6","g":"7","h":"8","i":"9","j":"10","k":"11","l":"12","m":"13","n":"14","o":"15","p":"16","q":"17","r":"18"}"#,
        ].map { Array($0.utf8) }

        func violation(_ bytes: [UInt8]) -> String? {
            if let what = time(String(decoding: bytes, as: UTF8.self)) { return what }
            if let object = try? JSONObjectReader(bytes) {
                if let what = read(object, depth: 0) { return what }
            }
            let value: JSONValue
            do throws(JSONSyntaxError) {
                value = try JSONDocument(bytes).value
            } catch {
                return (0...bytes.count).contains(error.offset) ? nil : "the fault is said to be at byte \(error.offset) of \(bytes.count)"
            }
            var writer = JSONWriter()
            writer.value(value)
            guard let again = try? JSONDocument(writer.bytes).value else { return "what is written cannot be read: \(writer.string)" }
            return again == Self.finite(value) ? nil : "read \(value), written and read \(again)"
        }

        /// A number beyond all doubles is read as infinity, for which JSON has no word but `null`.
        private static func finite(_ value: JSONValue) -> JSONValue {
            switch value {
            case .double(let double): double.isFinite ? value : .null
            case .array(let values): .array(values.map(finite))
            case .object(let members): .object(members.map { JSONMember($0.name, finite($0.value)) })
            case .null, .bool, .int, .string: value
            }
        }

        private func read(_ object: JSONObjectReader, depth: Int) -> String? {
            for name: StaticString in ["a", "b", "c", "d", "items"] {
                if let int = try? object.int(name, in: -5...9_223_372_036_854_775_807), int < -5 { return "\(int) is out of its range" }
                if let text = try? object.string(name, length: 1...40) {
                    guard (1...40).contains(text.unicodeScalars.count), !text.unicodeScalars.contains(where: { $0.value < 32 }) else {
                        return text.debugDescription
                    }
                    if let what = time(text) { return what }
                    _ = try? Values.idempotencyKey(text, field: "a")
                    _ = Values.id(text)
                }
                _ = try? object.text(name)
                _ = object.value(name)
                _ = object.contains(name)
                _ = try? object.refuseMembers(otherThan: [name])
                if depth < 4, let list = try? object.objects(name, count: 0...3) {
                    guard list.count <= 3 else { return "\(list.count) objects, at most 3" }
                    for inner in list { if let what = read(inner, depth: depth + 1) { return what } }
                }
            }
            return nil
        }

        private func time(_ text: String) -> String? {
            guard let time = Timestamp(rfc3339: text) else { return nil }
            guard Timestamp(rfc3339: time.description) == time else {
                return "\(text) is written as \(time), which is read as another time"
            }
            _ = Timestamp(microsecondsSinceEpoch: .min).microseconds(since: time)
            _ = time.microseconds(since: Timestamp(microsecondsSinceEpoch: .min))
            _ = time.advanced(by: .seconds(Int64.max))
            return nil
        }
    }
#endif
