import PostgresClient
import Testing

@Suite("Decoding: the type that is wanted, and errors that name the column")
struct DecodingTests {
    private enum Colour: String, PostgresDecodable { case red, blue }
    private enum Code: Int64, PostgresDecodable { case one = 1, two }

    /// The message of the error that both kinds of row throw for one cell.
    private func refusal<Value: PostgresDecodable>(_ sql: String, _ column: Int, _ type: Value.Type) throws -> String? {
        let session = PostgresSession(configuration: try SharedServer.configuration())
        let copied = try session.query(sql).one()
        let ofCopy = #expect(throws: PostgresError.self, "\(sql)") { try copied.decode(column, as: type) }
        let ofView = #expect(throws: PostgresError.self, "\(sql)") {
            try session.query(sql, []) { (row) throws(PostgresError) in _ = try row.decode(column, as: type) }
        }
        #expect(ofCopy == ofView)
        #expect(ofCopy?.code == .decoding)
        return ofCopy?.message
    }

    @Test("the place says the type")
    func inference() throws {
        struct Row: Equatable {
            var id: Int64
            var count: Int
            var name: String?
            var colour: Colour
            var code: Code?
            var at: PostgresTimestamp
            var ids: [Int64]
        }
        let sql = """
            select 7::int4 as id, 8::int8 as count, null::text as name, 'blue' as colour, 2::int8 as code,
              '2024-02-29 12:00:00+00'::timestamptz as at, '{1,2}'::int8[] as ids
            """
        let session = PostgresSession(configuration: try SharedServer.configuration())
        let expected = Row(
            id: 7,
            count: 8,
            name: nil,
            colour: .blue,
            code: .two,
            at: PostgresTimestamp(microsecondsSinceEpoch: 1_709_208_000_000_000),
            ids: [1, 2]
        )
        let row = try session.query(sql).one()
        let copied = Row(
            id: try row.decode(0),
            count: try row.decode(1),
            name: try row.decode(2),
            colour: try row.decode(3),
            code: try row.decode(4),
            at: try row.decode(5),
            ids: try row.decode(6)
        )
        #expect(copied == expected)
        var lent: Row?
        try session.query(sql, []) { (row) throws(PostgresError) in
            lent = Row(
                id: try row.decode(0),
                count: try row.decode(1),
                name: try row.decode(2),
                colour: try row.decode(3),
                code: try row.decode(4),
                at: try row.decode(5),
                ids: try row.decode(6)
            )
        }
        #expect(lent == expected)
    }

    @Test("an error names the column, its type and what was wanted")
    func errors() throws {
        #expect(try refusal("select 1 as a, 'x'::text as b", 1, Int64.self) == "column 1 ('b', text) was asked for as an integer")
        #expect(try refusal("select 1::int8 as n", 0, String.self) == "column 0 ('n', int8) was asked for as text")
        #expect(try refusal("select 1::numeric as n", 0, Int64.self)?.hasPrefix("column 0 ('n', the type with object id 1700)") == true)
        #expect(try refusal("select null::int8 as gone", 0, Int64.self) == "column 0 ('gone', int8) is null")
        #expect(try refusal("select null::int8[] as gone", 0, [Int64].self) == "column 0 ('gone', int8[]) is null")
        #expect(try refusal("select null::text[] as gone", 0, [String?].self) == "column 0 ('gone', text[]) is null")
        #expect(try refusal("select '{1,null}'::int8[] as some", 0, [Int64].self) == "column 0 ('some', int8[]): an element is null")
        #expect(
            try refusal("select '{{1},{2}}'::int8[] as deep", 0, [Int64].self)
                == "column 0 ('deep', int8[]): it is not a one-dimensional array"
        )
        #expect(
            try refusal("select 'infinity'::timestamptz as never", 0, PostgresTimestamp.self)
                == "column 0 ('never', timestamptz): the timestamp is infinite"
        )
        #expect(try refusal("select 1 as a", 3, Int64.self) == "there is no column 3, the result has 1")
        #expect(try refusal("select 1 as a", -1, Int64?.self) == "there is no column -1, the result has 1")
    }

    @Test("a value that the program does not know is an error that shows it")
    func unknownValues() throws {
        #expect(
            try refusal("select 'green'::text as paint", 0, Colour.self) == "column 0 ('paint', text) holds 'green', which is no Colour"
        )
        #expect(try refusal("select 9::int8 as code", 0, Code?.self) == "column 0 ('code', int8) holds '9', which is no Code")
        #expect(try refusal("select null::text as paint", 0, Colour.self) == "column 0 ('paint', text) is null")
    }
}
