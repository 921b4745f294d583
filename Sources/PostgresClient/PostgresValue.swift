/// A parameter of a statement, sent in PostgreSQL's binary format with the type that stands above each case.
///
/// The server is told this type. Where another type is meant, the SQL casts the parameter: `$1::uuid` for a text, `$2::int` for an int where a function wants
/// four bytes.
public enum PostgresValue: Sendable, Hashable {
    /// SQL `NULL`, of the type that the statement implies.
    case null
    /// `int8`.
    case int(Int64)
    /// `text`.
    case text(String)
    /// `bool`.
    case bool(Bool)
    /// `float8`.
    case double(Double)
    /// `bytea`.
    case bytes([UInt8])
    /// `int8[]`.
    case ints([Int64])
    /// `int8[]` with nulls.
    case optionalInts([Int64?])
    /// `text[]`.
    case texts([String])
    /// `text[]` with nulls.
    case optionalTexts([String?])
    /// `bool[]`.
    case bools([Bool])
    /// `timestamptz`, microseconds since the Unix epoch.
    case timestampMicros(Int64)
    /// `timestamptz[]`, microseconds since the Unix epoch.
    case timestampsMicros([Int64])
    /// `jsonb`, as JSON text.
    case json(String)
}

extension PostgresValue {
    /// The integer, or `null` for nil.
    public static func optionalInt(_ value: Int64?) -> PostgresValue { value.map(PostgresValue.int) ?? .null }
    /// The text, or `null` for nil.
    public static func optionalText(_ value: String?) -> PostgresValue { value.map(PostgresValue.text) ?? .null }

    /// The type's object id; 0 leaves the type to the statement.
    var typeID: UInt32 {
        switch self {
        case .null: 0
        case .int: TypeID.int8
        case .text: TypeID.text
        case .bool: TypeID.bool
        case .double: TypeID.float8
        case .bytes: TypeID.bytea
        case .ints, .optionalInts: TypeID.int8Array
        case .texts, .optionalTexts: TypeID.textArray
        case .bools: TypeID.boolArray
        case .timestampMicros: TypeID.timestamptz
        case .timestampsMicros: TypeID.timestamptzArray
        case .json: TypeID.jsonb
        }
    }
}

/// Object ids of built-in types, fixed for ever (PostgreSQL `src/include/catalog/pg_type.dat`).
enum TypeID {
    static let bool: UInt32 = 16
    static let bytea: UInt32 = 17
    static let char: UInt32 = 18
    static let name: UInt32 = 19
    static let int8: UInt32 = 20
    static let int2: UInt32 = 21
    static let int4: UInt32 = 23
    static let text: UInt32 = 25
    static let oid: UInt32 = 26
    static let json: UInt32 = 114
    static let float4: UInt32 = 700
    static let float8: UInt32 = 701
    static let unknown: UInt32 = 705
    static let boolArray: UInt32 = 1000
    static let int2Array: UInt32 = 1005
    static let int4Array: UInt32 = 1007
    static let textArray: UInt32 = 1009
    static let varcharArray: UInt32 = 1015
    static let int8Array: UInt32 = 1016
    static let bpchar: UInt32 = 1042
    static let varchar: UInt32 = 1043
    static let timestamp: UInt32 = 1114
    static let timestamptz: UInt32 = 1184
    static let timestamptzArray: UInt32 = 1185
    static let uuid: UInt32 = 2950
    static let jsonb: UInt32 = 3802
    /// The first id of types that users create, enums and domains among them.
    static let firstUserDefined: UInt32 = 16384

    /// The type's name, for errors.
    static func word(for id: UInt32) -> String {
        switch id {
        case bool: "bool"
        case bytea: "bytea"
        case char: "char"
        case name: "name"
        case int8: "int8"
        case int2: "int2"
        case int4: "int4"
        case text: "text"
        case oid: "oid"
        case json: "json"
        case float4: "float4"
        case float8: "float8"
        case boolArray: "bool[]"
        case int2Array: "int2[]"
        case int4Array: "int4[]"
        case textArray: "text[]"
        case varcharArray: "varchar[]"
        case int8Array: "int8[]"
        case bpchar: "bpchar"
        case varchar: "varchar"
        case timestamp: "timestamp"
        case timestamptz: "timestamptz"
        case timestamptzArray: "timestamptz[]"
        case uuid: "uuid"
        case jsonb: "jsonb"
        default: "the type with object id \(id)"
        }
    }
}
