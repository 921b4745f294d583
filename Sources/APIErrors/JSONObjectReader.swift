public import StrictJSON

/// Typed access to the members of a JSON object of a request. Every fault is a `VALIDATION_ERROR` that names the field.
///
/// Members that nobody asks for are ignored. A member that is `null` counts as missing.
/// ```swift
/// let body = try JSONObjectReader(bytes)
/// let quantity = try body.int("quantity", in: 1...1_000_000_000)
/// let buyer = try body.optionalString("buyerId", length: 1...128)
/// ```
public struct JSONObjectReader: Sendable {
    private let document: JSONDocument
    private let index: Int
    private let place: Place

    /// Where the object stands in the body. A text is made of it only for an error: a body may hold hundreds of objects.
    private enum Place {
        case top
        /// An object of a list of the top, by the list's name and the object's number.
        case element(StaticString, Int)
        /// Further down.
        case below(String)
    }

    /// What stands before a field's name in an error, such as `items[3].`; empty at the top.
    private var prefix: String {
        switch place {
        case .top: ""
        case .element(let list, let number): "\(list)[\(number)]."
        case .below(let prefix): prefix
        }
    }

    /// Reads a body that must be one JSON object.
    /// - Throws: `VALIDATION_ERROR`
    public init(_ bytes: [UInt8]) throws(APIError) {
        let document: JSONDocument
        do {
            document = try JSONDocument(bytes)
        } catch {
            throw .malformed(error)
        }
        guard document.tokens[0].kind == .object else { throw .invalid(field: "body", .notAnObject) }
        self.init(document: document, index: 0, place: .top)
    }

    /// Reads a body that must be one JSON object, out of any contiguous bytes, which are copied once.
    /// - Throws: `VALIDATION_ERROR`
    public init(_ bytes: some Sequence<UInt8>) throws(APIError) {
        try self.init(Array(bytes))
    }

    private init(document: JSONDocument, index: Int, place: Place) {
        self.document = document
        self.index = index
        self.place = place
    }

    /// The token of a member's value; nil if it is missing or null.
    private func member(_ name: StaticString) -> Int? {
        guard let value = document.member(name, of: index), document.tokens[value].kind != .null else { return nil }
        return value
    }

    /// A member's name as errors have it, such as `items[3].key`.
    public func path(_ name: StaticString) -> String { prefix + name.description }

    private func required<Value>(_ name: StaticString, _ value: Value?) throws(APIError) -> Value {
        guard let value else { throw .missing(field: path(name)) }
        return value
    }

    /// Whether the member is there and not null.
    public func contains(_ name: StaticString) -> Bool { member(name) != nil }

    /// The names of all members, in their order.
    private var names: [String] {
        let end = Int(document.tokens[index].next)
        var names: [String] = []
        var child = index + 1
        while child < end {
            names.append(document.string(at: child))
            child = Int(document.tokens[child + 1].next)
        }
        return names
    }

    /// Refuses members that a route does not know, also those that are `null`. Otherwise the route would answer that a change is made, and make none.
    /// - Throws: `VALIDATION_ERROR` naming them
    public func refuseMembers(otherThan known: [StaticString]) throws(APIError) {
        let end = Int(document.tokens[index].next)
        var child = index + 1
        while child < end, known.contains(where: { document.isText(at: child, $0) }) {
            child = Int(document.tokens[child + 1].next)
        }
        if child >= end { return }
        let texts = known.map(\.description)
        let unknown = names.filter { name in !texts.contains { $0.utf8.elementsEqual(name.utf8) } }
        throw .unknown(unknown.map { prefix + $0 }, known: texts, .unknownMembers)
    }

    // MARK: Numbers

    /// A whole number, written without fraction and exponent, within the range.
    public func int(_ name: StaticString, in range: ClosedRange<Int64>) throws(APIError) -> Int64 {
        try required(name, optionalInt(name, in: range))
    }

    /// A whole number within the range, or nil if missing.
    public func optionalInt(_ name: StaticString, in range: ClosedRange<Int64>) throws(APIError) -> Int64? {
        guard let index = member(name) else { return nil }
        guard document.tokens[index].kind == .whole, let value = document.int64(at: index), range.contains(value) else {
            throw .notWhole(field: path(name), range: range)
        }
        return value
    }

    // MARK: Texts

    /// A text of so many characters (Unicode scalars), none of them a control character.
    public func string(_ name: StaticString, length: ClosedRange<Int>) throws(APIError) -> String {
        try required(name, optionalString(name, length: length))
    }

    /// A text of so many characters (Unicode scalars), none of them a control character, or nil if missing.
    public func optionalString(_ name: StaticString, length: ClosedRange<Int>) throws(APIError) -> String? {
        guard let text = try self.text(name) else { return nil }
        return try Values.text(text, field: path(name), length: length)
    }

    /// A text as it is, or nil if missing; the caller checks it.
    public func text(_ name: StaticString) throws(APIError) -> String? {
        guard let index = member(name) else { return nil }
        switch document.tokens[index].kind {
        case .text, .escapedText: return document.string(at: index)
        default: throw .invalid(field: path(name), .fieldNotText)
        }
    }

    /// Whether a member is exactly this text.
    public func isText(_ name: StaticString, _ text: StaticString) -> Bool {
        guard let index = member(name) else { return false }
        switch document.tokens[index].kind {
        case .text, .escapedText: return document.isText(at: index, text)
        default: return false
        }
    }

    /// One of an enumeration's raw values.
    public func choice<Choice: RawRepresentable & CaseIterable>(_ name: StaticString, _ type: Choice.Type) throws(APIError) -> Choice
    where Choice.RawValue == String {
        try required(name, optionalChoice(name, type))
    }

    /// One of an enumeration's raw values, or nil if missing.
    public func optionalChoice<Choice: RawRepresentable & CaseIterable>(
        _ name: StaticString,
        _ type: Choice.Type
    ) throws(APIError) -> Choice? where Choice.RawValue == String {
        guard let index = member(name) else { return nil }
        let kind = document.tokens[index].kind
        guard kind == .text || kind == .escapedText, let choice = Choice(rawValue: document.string(at: index)) else {
            throw .notAChoice(field: path(name), type)
        }
        return choice
    }

    // MARK: Other values

    /// A list of so many objects.
    public func objects(_ name: StaticString, count: ClosedRange<Int>) throws(APIError) -> [JSONObjectReader] {
        let index = try required(name, member(name))
        let list = document.tokens[index]
        func fault() -> APIError {
            .invalid(
                field: path(name),
                .fieldNotArray,
                JSONMember("minimum", .int(Int64(count.lowerBound))),
                JSONMember("maximum", .int(Int64(count.upperBound)))
            )
        }
        guard list.kind == .array else { throw fault() }
        var readers: [JSONObjectReader] = []
        var child = index + 1
        while child < Int(list.next) {
            guard document.tokens[child].kind == .object, readers.count < count.upperBound else { throw fault() }
            let place: Place =
                if case .top = self.place { .element(name, readers.count) } else { .below("\(path(name))[\(readers.count)].") }
            readers.append(JSONObjectReader(document: document, index: child, place: place))
            child = Int(document.tokens[child].next)
        }
        guard readers.count >= count.lowerBound else { throw fault() }
        return readers
    }

    /// The member as a value of any kind, or nil if missing.
    public func value(_ name: StaticString) -> JSONValue? {
        member(name).map { document.value(at: $0) }
    }
}

extension APIError {
    package static func notWhole(field: String, range: ClosedRange<Int64>) -> APIError {
        .invalid(
            field: field,
            .fieldNotWhole,
            JSONMember("minimum", .int(range.lowerBound)),
            JSONMember("maximum", .int(range.upperBound))
        )
    }

    package static func notAChoice<Choice: RawRepresentable & CaseIterable>(field: String, _ type: Choice.Type) -> APIError
    where Choice.RawValue == String {
        .invalid(field: field, .fieldChoice, JSONMember("allowed", .array(Choice.allCases.map { .string($0.rawValue) })))
    }
}
