import APIErrors

/// The parameters of a query, in the order given: pairs of a name and a value, in a form's encoding (WHATWG URL, section 5.1).
///
/// Bounds: a query is part of a request's head, which the HTTP reader bounds.
struct QueryParameters {
    private let pairs: [(name: String, value: String)]

    /// Reads a query; nil has no parameters. A parameter without `=` has an empty value.
    /// - Throws: `VALIDATION_ERROR` for bad percent-encoding, what is not UTF-8, and control characters
    init(_ query: String?) throws(APIError) {
        var pairs: [(name: String, value: String)] = []
        for pair in (query ?? "").utf8.split(separator: UInt8(ascii: "&")) {
            let parts = pair.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            let name = try Values.decoded(parts[0], field: "query", plusIsSpace: true)
            let value = parts.count == 2 ? try Values.decoded(parts[1], field: APIError.shortened(name), plusIsSpace: true) : ""
            pairs.append((name, value))
        }
        self.pairs = pairs
    }

    /// A parameter's value; nil if it is missing.
    subscript(name: String) -> String? { pairs.first { QueryParameters.isEqual($0.name, name) }?.value }

    /// Refuses parameters that a route does not know, and known ones that are given twice.
    /// - Throws: `VALIDATION_ERROR` naming them
    func check(known: [String]) throws(APIError) {
        if pairs.isEmpty { return }
        let unknown = pairs.map(\.name).filter { name in !known.contains { QueryParameters.isEqual($0, name) } }
        guard unknown.isEmpty else {
            throw .unknown(unknown, known: known, known.isEmpty ? .noQueryParameters : .unknownQueryParameters)
        }
        for name in known where pairs.count(where: { QueryParameters.isEqual($0.name, name) }) > 1 {
            throw .invalid(field: name, .fieldTwice)
        }
    }

    /// By bytes: two texts that Unicode calls equivalent are two names.
    private static func isEqual(_ one: String, _ other: String) -> Bool { one.utf8.elementsEqual(other.utf8) }
}
