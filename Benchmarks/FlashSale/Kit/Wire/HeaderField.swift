import Foundation

/// One line of a request's head that the caller chose.
public struct HeaderField: Equatable, Sendable {
    /// A token, such as `Authorization`.
    public let name: String
    /// Visible characters, spaces and tabs.
    public let value: String

    /// Fields that the harness writes itself: two of one would make a request that servers read in different ways.
    private static let own: Set<String> = [
        "host", "content-length", "transfer-encoding", "connection", "idempotency-key", "idempotency-attempt", "content-type",
    ]

    /// Reads `Name: value`.
    /// - Throws: `PlanError`, which never repeats the value: it may be a secret.
    public init(_ text: String) throws(PlanError) {
        guard let colon = text.firstIndex(of: ":"), colon > text.startIndex else {
            throw PlanError("a header is written 'Name: value'")
        }
        let name = String(text[..<colon])
        let value = text[text.index(after: colon)...].trimmingCharacters(in: .whitespaces)
        let marks = "!#$%&'*+-.^_`|~"
        guard name.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber) || marks.contains($0) }) else {
            throw PlanError("'\(name)' is no name of a header")
        }
        guard !Self.own.contains(name.lowercased()) else { throw PlanError("the harness writes the header \(name) itself") }
        guard value.unicodeScalars.allSatisfy({ $0 == "\t" || $0.value >= 0x20 && $0.value != 0x7F }) else {
            throw PlanError("the value of the header \(name) has control characters")
        }
        self.name = name
        self.value = value
    }

    /// Reads what `--header` was given: a field, or `@FILE` with one in each line, so that a secret need not stand on a command line.
    /// - Throws: `PlanError` that names the file, never its content.
    public static func read(_ text: String) throws(PlanError) -> [HeaderField] {
        guard text.hasPrefix("@") else { return [try HeaderField(text)] }
        let path = String(text.dropFirst())
        guard let content = try? String(contentsOfFile: path, encoding: .utf8) else {
            throw PlanError("--header: the file \(path) cannot be read")
        }
        var fields: [HeaderField] = []
        for line in content.split(whereSeparator: \.isNewline) where !line.allSatisfy(\.isWhitespace) {
            fields.append(try HeaderField(String(line)))
        }
        return fields
    }
}
