import CLibPQ
import Glibc

/// One blocking connection to PostgreSQL that hides nothing: statements with text parameters, rows as text.
final class RawPostgres {
    struct Failure: Error, Equatable {
        var state: String
        var message: String
    }

    private let connection: OpaquePointer?

    init(url: String) throws {
        connection = PQconnectdb(url)
        guard PQstatus(connection) == CONNECTION_OK else {
            throw Failure(state: "08000", message: String(cString: PQerrorMessage(connection)))
        }
        try script("set client_min_messages = warning; set timezone = 'UTC'")
    }

    deinit { PQfinish(connection) }

    func script(_ text: String) throws {
        let result = PQexec(connection, text)
        defer { PQclear(result) }
        try check(result)
    }

    func query(_ text: String, _ parameters: [String] = []) throws -> [[String]] {
        var copies = parameters.map { UnsafePointer(strdup($0)) }
        defer { for copy in copies { free(UnsafeMutablePointer(mutating: copy)) } }
        let result = PQexecParams(connection, text, Int32(parameters.count), nil, &copies, nil, nil, 0)
        defer { PQclear(result) }
        try check(result)
        return (0..<PQntuples(result)).map { row in
            (0..<PQnfields(result)).map { String(cString: PQgetvalue(result, row, $0)) }
        }
    }

    private func check(_ result: OpaquePointer?) throws {
        let status = PQresultStatus(result)
        guard status != PGRES_TUPLES_OK, status != PGRES_COMMAND_OK else { return }
        let state = PQresultErrorField(result, Int32(UnicodeScalar("C").value)).map { String(cString: $0) } ?? ""
        throw Failure(state: state, message: String(cString: PQresultErrorMessage(result)))
    }
}
