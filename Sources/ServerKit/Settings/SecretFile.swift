// Invariant: the value is always one that was read whole; what cannot be read, or makes no value, leaves the one before in force.
// Bound: a file of `maximumBytes`.

import Glibc
import Synchronization

/// Something that is read again while the server runs.
public protocol Rereadable: Sendable {
    /// The variable that names it.
    var setting: String { get }
    /// Reads it again.
    func reread() -> Rereading
}

/// What came of reading something again.
public enum Rereading: Sendable, Equatable {
    /// The value is as it was.
    case unchanged
    /// The value is another now, and in force.
    case changed
    /// What was read cannot be used, and the value before stays in force. The text says why, without a secret.
    case failed(String)
}

/// A secret in a file, such as an orchestrator mounts: the file may be replaced while the server runs.
public final class SecretFile<Value: Sendable & Equatable>: Rereadable {
    /// The variable that names the file.
    public let setting: String
    private let path: String
    private let parse: @Sendable (String) -> Value?
    private let state: Mutex<Value>

    /// Reads a file.
    /// - Parameter parse: nil for a text that makes no value
    init(_ setting: String, path: String, parse: @escaping @Sendable (String) -> Value?) throws(SettingsReader.Refusal) {
        self.setting = setting
        self.path = path
        self.parse = parse
        state = Mutex(try Self.read(path, parse))
    }

    /// What is in force.
    public var value: Value { state.withLock { $0 } }

    /// Reads the file again.
    public func reread() -> Rereading {
        do throws(SettingsReader.Refusal) {
            let new = try Self.read(path, parse)
            return state.withLock { value in
                defer { value = new }
                return value == new ? .unchanged : .changed
            }
        } catch {
            return .failed(error.words)
        }
    }

    private static var maximumBytes: Int { 65_536 }

    private static func read(_ path: String, _ parse: (String) -> Value?) throws(SettingsReader.Refusal) -> Value {
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard file >= 0 else { throw SettingsReader.Refusal("the file cannot be opened (\(String(cString: strerror(errno))))") }
        defer { close(file) }
        var bytes: [UInt8] = []
        // Ends with the file or the bound.
        while bytes.count <= Self.maximumBytes {
            var part = [UInt8](repeating: 0, count: 8_192)
            let count = Glibc.read(file, &part, part.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw SettingsReader.Refusal("the file cannot be read (\(String(cString: strerror(errno))))") }
            if count == 0 { break }
            bytes += part[..<count]
        }
        guard bytes.count <= Self.maximumBytes else { throw SettingsReader.Refusal("the file is larger than \(Self.maximumBytes) bytes") }
        guard let text = String(validating: bytes, as: UTF8.self), let value = parse(text) else {
            throw SettingsReader.Refusal("what is in the file cannot be what it is for")
        }
        return value
    }
}

/// A secret as it was set: in a variable, for as long as the server runs, or in a file.
public enum Secret<Value: Sendable & Equatable>: Sendable {
    /// In a variable.
    case fixed(Value)
    /// In a file that may change.
    case file(SecretFile<Value>)

    /// What is in force.
    public var value: Value {
        switch self {
        case .fixed(let value): value
        case .file(let file): file.value
        }
    }
}

extension SettingsReader {
    /// `NAME`, or a file that holds it in `NAME_FILE`; nil without either.
    /// - Parameters:
    ///   - expected: what it must be, for a refusal
    ///   - parse: nil for a text that makes no value; blanks around the text are left out
    public mutating func secret<Value: Sendable & Equatable>(
        _ name: String,
        _ meaning: String,
        expected: String,
        parse: @escaping @Sendable (String) -> Value?
    ) -> Secret<Value>? {
        let text = self.secret(name, meaning)
        let setting = "\(name)_FILE"
        let path = optionalString(setting, "a file with the value of \(name), in one or several lines; SIGHUP reads it again")
        if text != nil, path != nil { refuse("\(name) and \(setting) are both set: one of them is enough") }
        if let path {
            do throws(Refusal) {
                let file = try SecretFile(setting, path: path) { parse(SettingsReader.withoutBlanks($0)) }
                noteRereadable(file)
                return .file(file)
            } catch {
                refuse("\(setting): \(error.words)")
                return nil
            }
        }
        guard let text else { return nil }
        guard let value = parse(text) else {
            refuse("\(name) must be \(expected)")
            return nil
        }
        return .fixed(value)
    }
}
