/// A piece of JSON.
public enum ReportValue: Codable, Equatable, Sendable {
    case null
    case bool(Bool)
    case int(Int64)
    /// What is no number is written as null: JSON has no word for it.
    case double(Double)
    case string(String)
    case array([ReportValue])
    case object([String: ReportValue])

    /// Writes it.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .int(let value): try container.encode(value)
        case .double(let value): if value.isFinite { try container.encode(value) } else { try container.encodeNil() }
        case .string(let value): try container.encode(value)
        case .array(let values): try container.encode(values)
        case .object(let fields): try container.encode(fields)
        }
    }

    /// Reads it.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .int(value)
        } else if let value = try? container.decode(Double.self) {
            self = .double(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let values = try? container.decode([ReportValue].self) {
            self = .array(values)
        } else {
            self = .object(try container.decode([String: ReportValue].self))
        }
    }

    static func int(_ value: Int) -> ReportValue { .int(Int64(value)) }
    static func optional(_ value: Int64?) -> ReportValue { value.map { .int($0) } ?? .null }
    static func optional(_ value: String?) -> ReportValue { value.map { .string($0) } ?? .null }

    subscript(_ key: String) -> ReportValue? {
        if case .object(let fields) = self { fields[key] } else { nil }
    }

    var number: Double? {
        switch self {
        case .int(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }

    var text: String? { if case .string(let value) = self { value } else { nil } }
    var fields: [String: ReportValue] { if case .object(let value) = self { value } else { [:] } }
    var list: [ReportValue]? { if case .array(let values) = self { values } else { nil } }
}
