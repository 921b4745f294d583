/// Finds each `self.` that the compiler does not ask for and that no local name makes necessary.
///
/// It reads words, not types, and where it cannot know it lets a `self.` stand: inside a closure of a class that may be kept, and wherever the member's body
/// has any local name like the one behind `self.`.
struct SelfUses {
    /// A `self.` too many.
    struct Finding: Equatable, CustomStringConvertible {
        let line: Int
        let name: String
        var description: String { "line \(line): self.\(name)" }
    }

    /// What a pair of braces holds.
    private enum Scope {
        case type(isClass: Bool)
        /// The body of a function, an accessor or a computed property of a type. The value is the number of its member.
        case member(Int)
        /// What belongs to a statement such as `if`, and functions inside functions: no `self` is captured.
        case block
        /// A closure that its function calls before it returns.
        case passing
        /// A closure that may be kept.
        case kept
    }

    private static let types: Set<String> = ["struct", "class", "enum", "extension", "actor", "protocol"]
    private static let declarations: Set<String> = ["func", "init", "deinit", "var", "let", "subscript", "case"]
    private static let blocks: Set<String> = [
        "if", "guard", "for", "while", "switch", "do", "else", "catch", "defer", "repeat", "func",
    ]
    private static let accessors: Set<String> = ["get", "set", "willSet", "didSet"]
    /// Functions of the standard library, and a few others, that never keep the closure behind them. `map` and `flatMap` are missing: a future keeps theirs.
    private static let passing: Set<String> = [
        "withLock", "filter", "compactMap", "forEach", "contains", "first", "last", "reduce", "sort", "sorted", "allSatisfy", "removeAll",
        "drop",
        "prefix", "firstIndex", "lastIndex", "max", "min", "withUnsafeBytes", "withUnsafePointer", "withUnsafeMutableBytes",
        "withUnsafeMutablePointer", "withUnsafeReadableBytes", "withUnsafeBufferPointer",
    ]
    /// Words that cannot stand alone, and names that a block may bring without a word for it.
    private static let indispensable: Set<String> = [
        "init", "error", "newValue", "oldValue", "default", "in", "where", "repeat", "self", "switch", "case", "func", "return", "is", "as",
        "for", "if",
        "let", "var", "do", "try", "throw", "import", "operator", "extension", "class", "struct", "enum", "protocol", "static", "subscript",
        "deinit",
        "internal", "public", "private", "Type",
    ]
    /// Behind these, or before these, a statement goes on in the next line.
    private static let joining: Set<String> = [
        ",", "&", "|", "=", "(", "[", "?", ":", ".", "-", ">", "+", "*", "/", "<", "else", "where", "throws", "async",
    ]

    private let tokens: [SwiftTokens.Token]
    private let classes: Set<String>
    private var scopes: [Scope] = []
    private var depths: [Int] = []
    private var depth = 0
    /// The first token of the statement in hand, one for each open brace and one for the file.
    private var starts = [0]
    private var memberStart = 0
    private var member = 0
    /// The names that each member has of its own, and each `self.` in it that no closure asks for.
    private var bound: [Set<String>] = []
    private var candidates: [(member: Int, finding: Finding)] = []

    /// - Parameter classes: the names of all classes and actors, since an extension does not tell what it extends
    static func unneeded(in source: String, classes: Set<String>) -> [Finding] {
        var uses = SelfUses(tokens: SwiftTokens(source).tokens, classes: classes)
        uses.walk()
        return uses.candidates.filter { !uses.bound[$0.member].contains($0.finding.name) }.map(\.finding)
    }

    /// The names of the classes and actors that a file declares.
    static func classes(in source: String) -> Set<String> {
        let tokens = SwiftTokens(source).tokens
        var names: Set<String> = []
        for index in tokens.indices.dropLast() where tokens[index].text == "class" || tokens[index].text == "actor" {
            names.insert(tokens[index + 1].text)
        }
        return names
    }

    private init(tokens: [SwiftTokens.Token], classes: Set<String>) {
        self.tokens = tokens
        self.classes = classes
    }

    private func text(_ index: Int) -> String { tokens.indices.contains(index) ? tokens[index].text : "" }

    private mutating func walk() {
        for index in tokens.indices {
            let token = tokens[index]
            if token.isFirstOfLine, depth == depths.last ?? 0, !Self.joining.contains(text(index - 1)), !Self.joining.contains(token.text),
                token.text != "{"
            {
                starts[starts.count - 1] = index
            }
            switch token.text {
            case "(", "[": depth += 1
            case ")", "]": depth -= 1
            case ";": starts[starts.count - 1] = index + 1
            case "{": open(index)
            case "}": close(index)
            case "self": if text(index + 1) == ".", text(index - 1) != ".", text(index - 1) != "\\" { note(index) }
            default: break
            }
        }
    }

    private mutating func open(_ index: Int) {
        let scope = scope(index)
        if case .member(let number) = scope {
            bound.append([])
            // The head's parameters too.
            bind(from: starts.last ?? 0, upTo: end(of: index), to: number)
            member = number
        }
        scopes.append(scope)
        depths.append(depth)
        starts.append(index + 1)
    }

    private mutating func close(_ index: Int) {
        guard !scopes.isEmpty else { return }
        scopes.removeLast()
        depths.removeLast()
        starts.removeLast()
        // What stands behind a closure belongs to the same statement, and what stands behind another block begins a new one or is its `else`.
        if text(index + 1) != "else", text(index + 1) != "catch", text(index + 1) != ".", text(index + 1) != ")", text(index + 1) != "," {
            starts[starts.count - 1] = index + 1
        }
    }

    private func scope(_ index: Int) -> Scope {
        let statement = statement(before: index)
        let isInBody = scopes.contains { if case .member = $0 { true } else { false } }
        let kind = statement.lastIndex { Self.types.contains($0) }
        if let kind, kind + 1 < statement.count, !statement[(kind + 1)...].contains(where: Self.declarations.contains) {
            // `extension A.B` is about B.
            var name = kind + 1
            while name + 2 < statement.count, statement[name + 1] == "." { name += 2 }
            switch statement[kind] {
            case "class", "actor", "protocol": return .type(isClass: true)
            case "extension": return .type(isClass: classes.contains(statement[name]))
            default: return .type(isClass: false)
            }
        }
        if depth == depths.last ?? 0 {
            switch scopes.last {
            case .type?, nil: return .member(bound.count)
            default: break
            }
        }
        if !isInBody { return .kept }
        // The condition of a statement has its closures in parentheses.
        if depth == depths.last ?? 0, statement.contains(where: Self.blocks.contains) || Self.accessors.contains(statement.first ?? "") {
            return .block
        }
        return Self.passing.contains(callee(before: index)) ? .passing : .kept
    }

    /// The words of the statement in hand, without what stands in braces inside it.
    private func statement(before index: Int) -> [String] {
        var words: [String] = []
        var open = 0
        for at in (starts.last ?? 0)..<index {
            if text(at) == "}" { open -= 1 }
            // `for` is a word of the language, and `for:` a label.
            if open == 0, text(at + 1) != ":" { words.append(text(at)) }
            if text(at) == "{" { open += 1 }
        }
        return words
    }

    /// The function that a closure stands behind.
    private func callee(before index: Int) -> String {
        var at = index - 1
        guard text(at) == ")" else { return text(at) }
        var open = 0
        while at >= 0 {
            if text(at) == ")" { open += 1 }
            if text(at) == "(" {
                open -= 1
                if open == 0 { return text(at - 1) }
            }
            at -= 1
        }
        return ""
    }

    private func end(of index: Int) -> Int {
        var open = 0
        for at in index..<tokens.count {
            if text(at) == "{" { open += 1 }
            if text(at) == "}" {
                open -= 1
                if open == 0 { return at }
            }
        }
        return tokens.count
    }

    /// Takes in each name between two tokens that may be a local one.
    private mutating func bind(from start: Int, upTo end: Int, to number: Int) {
        var names: Set<String> = []
        var index = start
        while index < end {
            let word = text(index)
            // A parameter, or a label of a call, which is taken for one.
            if text(index + 1) == ":" { names.insert(word) }
            switch word {
            case "let", "var", "for", "weak", "unowned", "func":
                var at = index + 1
                while at < end, !["=", "in", "{", ":", "?"].contains(text(at)),
                    !tokens[at].isFirstOfLine || text(at - 1) == "," || text(at - 1) == "("
                {
                    if text(at - 1) != "." { names.insert(text(at)) }
                    at += 1
                }
            case "{", "[":
                // `{ a, b in` and `[a = b]`.
                var at = index + 1
                let head = at
                while at < end, !["in", "{", "}", ";", "]"].contains(text(at)), at - head < 60 { at += 1 }
                if text(at) == "in" || text(at) == "]" {
                    for known in head..<at where text(at) == "in" || text(known + 1) == "=" { names.insert(text(known)) }
                }
            default: break
            }
            index += 1
        }
        bound[number].formUnion(names)
    }

    private mutating func note(_ index: Int) {
        let name = text(index + 2)
        guard !Self.indispensable.contains(name) else { return }
        var number: Int?
        for scope in scopes.reversed() {
            switch scope {
            case .kept where number == nil:
                guard !isOfClass else { return }
            case .member(let own) where number == nil: number = own
            default: break
            }
        }
        guard let number else { return }
        candidates.append((number, Finding(line: tokens[index].line, name: name)))
    }

    /// Whether the innermost type is a class, or may be one.
    private var isOfClass: Bool {
        for scope in scopes.reversed() { if case .type(let isClass) = scope { return isClass } }
        return true
    }
}

/// The words and signs of a Swift file without comments and the text of literals; what is interpolated counts.
struct SwiftTokens {
    struct Token {
        let text: String
        let line: Int
        let isFirstOfLine: Bool
    }

    private(set) var tokens: [Token] = []
    private let bytes: [UInt8]
    private var line = 1
    private var lastLine = 0

    init(_ source: String) {
        bytes = Array(source.utf8)
        var position = 0
        code(&position, upTo: nil)
    }

    private func has(_ text: String, at position: Int) -> Bool { bytes[position...].starts(with: text.utf8) }

    private mutating func add(_ text: String) {
        tokens.append(Token(text: text, line: line, isFirstOfLine: line != lastLine))
        lastLine = line
    }

    private static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "_"), 0x80...:
            true
        default: false
        }
    }

    /// Reads code, up to the parenthesis that ends an interpolation if that is what it is in.
    private mutating func code(_ position: inout Int, upTo end: UInt8?) {
        var open = 0
        while position < bytes.count {
            let byte = bytes[position]
            if byte == UInt8(ascii: "\n") { line += 1 }
            if has("//", at: position) {
                while position < bytes.count, bytes[position] != UInt8(ascii: "\n") { position += 1 }
            } else if byte == UInt8(ascii: "\"") || (byte == UInt8(ascii: "#") && isQuote(after: position)) {
                literal(&position)
            } else if Self.isWord(byte) {
                let start = position
                while position < bytes.count, Self.isWord(bytes[position]) { position += 1 }
                add(String(decoding: bytes[start..<position], as: UTF8.self))
            } else {
                if byte == UInt8(ascii: "(") { open += 1 }
                if byte == UInt8(ascii: ")") {
                    open -= 1
                    if open < 0, end != nil { return }
                }
                if byte > UInt8(ascii: " "), byte != UInt8(ascii: "`") { add(String(UnicodeScalar(byte))) }
                position += 1
            }
        }
    }

    private func isQuote(after position: Int) -> Bool { bytes[position...].first { $0 != UInt8(ascii: "#") } == UInt8(ascii: "\"") }

    private mutating func literal(_ position: inout Int) {
        var hashes = ""
        while bytes[position] == UInt8(ascii: "#") {
            hashes += "#"
            position += 1
        }
        let quote = has("\"\"\"", at: position) ? "\"\"\"" : "\""
        position += quote.utf8.count
        add("\"")
        while position < bytes.count {
            if has(quote + hashes, at: position) {
                position += quote.utf8.count + hashes.utf8.count
                return
            }
            if has("\\" + hashes + "(", at: position) {
                position += 2 + hashes.utf8.count
                code(&position, upTo: UInt8(ascii: ")"))
                position += 1
                continue
            }
            if bytes[position] == UInt8(ascii: "\\"), hashes.isEmpty { position += 1 }
            if position < bytes.count, bytes[position] == UInt8(ascii: "\n") { line += 1 }
            position += 1
        }
    }
}
