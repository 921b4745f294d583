import APIErrors
import Foundation
public import FoundationEssentials

/// Reads a server's settings from the environment: each call declares one setting, its default and its meaning, and returns its value.
///
/// What is declared is what `--help` prints, so the two cannot differ. A setting that cannot be read gives its default for
/// the moment and is remembered; ``finish()`` then throws all faults at once. A variable that is set but empty counts as missing.
///
/// ```swift
/// struct ProductServerConfiguration {
///     let port: Int
///     init(from reader: inout SettingsReader) {
///         port = reader.int("PRODUCT_PORT", default: 8081, in: 0...65535, "public port")
///     }
/// }
/// ```
public struct SettingsReader: Sendable {
    /// One declared setting.
    public struct Setting: Sendable, Equatable {
        /// The environment variable.
        public let name: String
        /// The default as one would write it; nil if there is none.
        public let defaultText: String?
        /// What the setting means, in one line.
        public let meaning: String
        /// The value in force as one would write it, secrets masked.
        public let valueText: String
        /// Whether the environment gave the value.
        public let isGiven: Bool
    }

    private let environment: [String: String]
    /// Everything declared so far.
    public private(set) var settings: [Setting] = []
    /// What SIGHUP reads again, of everything declared so far.
    public private(set) var rereadables: [any Rereadable] = []
    /// What an operator is to be told at the start, though the server runs.
    public private(set) var warnings: [String] = []
    private var faults: [String] = []

    /// Reads from an environment; the process' own unless told otherwise.
    public init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        self.environment = environment
    }

    /// Ends the reading.
    /// - Throws: ``SettingsError`` with every variable that is missing or cannot be read
    public func finish() throws(SettingsError) {
        if !self.faults.isEmpty { throw SettingsError(faults: self.faults) }
    }

    /// Remembers a fault that was found after settings were read, such as two that do not fit together; ``finish()`` throws it.
    public mutating func refuse(_ fault: String) {
        faults.append(fault)
    }

    /// Remembers what an operator is to be told at the start: a setting that works and is risky. It must repeat no secret.
    public mutating func warn(_ warning: String) { warnings.append(warning) }

    mutating func noteRereadable(_ rereadable: any Rereadable) { rereadables.append(rereadable) }

    private mutating func read<Value>(
        _ name: String,
        default defaultValue: Value,
        defaultText: String?,
        _ meaning: String,
        expected: String,
        show: (Value) -> String,
        parse: (String) -> Value?
    ) -> Value {
        var value = defaultValue
        let given = environment[name].flatMap { $0.isEmpty ? nil : $0 }
        if let given {
            if let parsed = parse(given) {
                value = parsed
            } else {
                // The text itself is not repeated: it may be a secret in the wrong variable.
                faults.append("\(name) must be \(expected)")
            }
        }
        settings.append(
            Setting(name: name, defaultText: defaultText, meaning: meaning, valueText: show(value), isGiven: given != nil)
        )
        return value
    }

    // MARK: Kinds of settings

    /// A whole number.
    public mutating func int(_ name: String, default value: Int, in range: ClosedRange<Int>, _ meaning: String) -> Int {
        read(
            name,
            default: value,
            defaultText: String(value),
            meaning,
            expected: "a whole number from \(range.lowerBound) to \(range.upperBound)",
            show: { String($0) },
            parse: { Int($0).flatMap { range.contains($0) ? $0 : nil } }
        )
    }

    /// `true` or `false`, also `1`, `0`, `yes`, `no`, `on`, `off`.
    public mutating func bool(_ name: String, default value: Bool, _ meaning: String) -> Bool {
        read(
            name,
            default: value,
            defaultText: String(value),
            meaning,
            expected: "true or false",
            show: { String($0) },
            parse: {
                switch $0.lowercased() {
                case "true", "1", "yes", "on": true
                case "false", "0", "no", "off": false
                default: nil
                }
            }
        )
    }

    /// A duration: a number and `us`, `ms`, `s`, `m` or `h`, such as `50ms`, `1.5s`.
    public mutating func duration(
        _ name: String,
        default value: Duration,
        in range: ClosedRange<Duration>,
        _ meaning: String
    ) -> Duration {
        read(
            name,
            default: value,
            defaultText: value.settingText,
            meaning,
            expected: "a duration such as 50ms, 5s or 2m, from \(range.lowerBound.settingText) to \(range.upperBound.settingText)",
            show: { $0.settingText },
            parse: { Duration(settingText: $0).flatMap { range.contains($0) ? $0 : nil } }
        )
    }

    /// A text.
    public mutating func string(_ name: String, default value: String, _ meaning: String) -> String {
        read(name, default: value, defaultText: value, meaning, expected: "a text", show: { $0 }, parse: { $0 })
    }

    /// A text, or nil when the variable is missing.
    public mutating func optionalString(_ name: String, _ meaning: String) -> String? {
        read(name, default: nil, defaultText: nil, meaning, expected: "a text", show: { $0 ?? "" }, parse: { .some($0) })
    }

    /// A secret, or nil when the variable is missing. Shown as `***`.
    public mutating func secret(_ name: String, _ meaning: String) -> String? {
        read(
            name,
            default: nil,
            defaultText: nil,
            meaning,
            expected: "a text",
            show: { $0 == nil ? "" : "***" },
            parse: { .some($0) }
        )
    }

    /// A setting that is one of an enumeration's raw values, in upper or lower case.
    public mutating func choice<Choice: RawRepresentable & CaseIterable>(
        _ name: String,
        default value: Choice,
        _ meaning: String
    ) -> Choice where Choice.RawValue == String {
        let allowed = Choice.allCases.map(\.rawValue).joined(separator: ", ")
        return read(
            name,
            default: value,
            defaultText: value.rawValue,
            "\(meaning) (\(allowed))",
            expected: "one of \(allowed)",
            show: { $0.rawValue },
            parse: { text in Choice.allCases.first { $0.rawValue.lowercased() == text.lowercased() } }
        )
    }

    /// Why an address is refused. The words repeat nothing of the address.
    public struct Refusal: Error {
        /// What is wrong.
        public let words: String

        /// - Parameter words: what is wrong, to stand behind the variable's name and a colon
        public init(_ words: String) { self.words = words }
    }

    /// An address, read by the library that will connect to it, without the blanks around it. Its secrets are shown as `***`.
    /// - Parameter parse: must not repeat what it was given
    /// - Returns: nil when it was refused, and ``finish()`` throws
    public mutating func address<Value>(
        _ name: String,
        default value: String,
        _ meaning: String,
        parse: (String) throws(Refusal) -> Value
    ) -> Value? {
        let text = optionalText(name, default: value, meaning, show: Redaction.maskedAddress) ?? value
        return parsed(name, text, parse)
    }

    /// An address as `address` reads it; nil also when the variable is missing. All of it is shown as `***`.
    public mutating func optionalAddress<Value>(_ name: String, _ meaning: String, parse: (String) throws(Refusal) -> Value) -> Value? {
        optionalText(name, default: nil, meaning) { $0.isEmpty ? "" : "***" }.flatMap { parsed(name, $0, parse) }
    }

    private mutating func optionalText(_ name: String, default value: String?, _ meaning: String, show: (String) -> String) -> String? {
        read(
            name,
            default: value,
            defaultText: value.map(show),
            meaning,
            expected: "an address",
            show: { show($0 ?? "") },
            parse: { text in
                let trimmed = SettingsReader.withoutBlanks(text)
                return trimmed.isEmpty ? nil : .some(trimmed)
            }
        )
    }

    /// A setting without the blanks and line ends at both ends, which come along when it is copied or stands in a file.
    static func withoutBlanks(_ text: String) -> String {
        var text = text[...]
        while text.first?.isWhitespace == true { text = text.dropFirst() }
        while text.last?.isWhitespace == true { text = text.dropLast() }
        return String(text)
    }

    private mutating func parsed<Value>(_ name: String, _ text: String, _ parse: (String) throws(Refusal) -> Value) -> Value? {
        do throws(Refusal) {
            return try parse(text)
        } catch {
            refuse("\(name): \(error.words)")
            return nil
        }
    }

    /// URLs separated by commas, at least one and at most 64.
    public mutating func urls(_ name: String, default value: [String], schemes: [String], _ meaning: String) -> [String] {
        let masked = value.map(Redaction.maskedAddress).joined(separator: ",")
        return read(
            name,
            default: value,
            defaultText: masked,
            meaning,
            expected: "URLs beginning with \(schemes.map { $0 + "://" }.joined(separator: " or ")), separated by commas",
            show: { $0.map(Redaction.maskedAddress).joined(separator: ",") },
            parse: { text in
                let urls = text.split(separator: ",", omittingEmptySubsequences: false).map { String($0.trimmed) }
                guard (1...64).contains(urls.count), urls.allSatisfy({ SettingsReader.isURL($0, schemes: schemes) }) else { return nil }
                return urls
            }
        )
    }

    /// `scheme://[user[:password]@]host[:port][/…]`.
    private static func isURL(_ text: String, schemes: [String]) -> Bool {
        guard let separator = text.range(of: "://") else { return false }
        guard schemes.contains(text[..<separator.lowerBound].lowercased()) else { return false }
        let rest = text[separator.upperBound...]
        guard rest.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return false }
        let authority = rest.prefix { $0 != "/" && $0 != "?" }
        let hostAndPort = authority.split(separator: "@", omittingEmptySubsequences: false).last ?? ""
        if hostAndPort.isEmpty { return false }
        // Behind the brackets of an IPv6 address, or behind the only colon.
        let afterHost = hostAndPort.hasPrefix("[") ? hostAndPort.drop { $0 != "]" }.dropFirst() : hostAndPort.drop { $0 != ":" }
        guard !hostAndPort.hasPrefix(":") else { return false }
        if afterHost.isEmpty { return true }
        return afterHost.first == ":" && Int(afterHost.dropFirst()).map { (1...65535).contains($0) } ?? false
    }

    // MARK: Showing

    /// What `--help` prints.
    public func help(program: String, summary: String) -> String {
        let width = self.settings.map(\.name.count).max() ?? 0
        var text = "\(program): \(summary)\n\nUsage: \(program) [--help]\n\nSettings are environment variables:\n\n"
        for setting in self.settings {
            let padding = String(repeating: " ", count: width - setting.name.count)
            text += "  \(setting.name)\(padding)  \(setting.meaning)\n"
            text +=
                "  \(String(repeating: " ", count: width))  default: \(setting.defaultText.map { $0.isEmpty ? "empty" : $0 } ?? "none")\n"
        }
        return text
    }

    /// `NAME=value` of everything that the environment gave, secrets masked, for the log at start.
    public var givenText: String {
        settings.filter(\.isGiven).map { "\($0.name)=\($0.valueText)" }.joined(separator: " ")
    }
}

/// Settings that cannot be read. Names every variable, repeats no value.
public struct SettingsError: Error, Equatable, CustomStringConvertible {
    /// One sentence for each variable.
    public let faults: [String]

    /// Makes the error.
    public init(faults: [String]) { self.faults = faults }

    /// The sentences, one a line.
    public var description: String { faults.joined(separator: "\n") }
}

extension Duration {
    /// Reads a number and a unit, such as `50ms` or `1.5s`; nil if it is none.
    public init?(settingText text: String) {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let number = Double(digits), number.isFinite, number >= 0, number < 1e9 else { return nil }
        let microseconds: Double
        switch text[digits.endIndex...].trimmed {
        case "us": microseconds = number
        case "ms": microseconds = number * 1e3
        case "s": microseconds = number * 1e6
        case "m": microseconds = number * 6e7
        case "h": microseconds = number * 3.6e9
        default: return nil
        }
        self = .microseconds(Int64(microseconds.rounded()))
    }

    /// The duration as a setting has it, in the largest unit that keeps it whole.
    public var settingText: String {
        let (seconds, attoseconds) = self.components
        let microseconds = seconds * 1_000_000 + attoseconds / 1_000_000_000_000
        for (unit, size) in [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)] as [(String, Int64)]
        where microseconds != 0 && microseconds % size == 0 {
            return "\(microseconds / size)\(unit)"
        }
        return microseconds == 0 ? "0s" : "\(microseconds)us"
    }
}
