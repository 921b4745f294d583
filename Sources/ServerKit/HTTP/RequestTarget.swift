// Invariant: two targets that mean the same path have the same `path`, made of ASCII alone; decoding each of its segments once gives the texts that are meant.
// Bounds: linear in the target, which is part of a request's head and bounded by the HTTP reader.

import APIErrors

/// A request's target (RFC 9112, section 3.2) in its one spelling, judged before anything is routed by it.
///
/// Each path segment is percent-decoded once, checked by the rules of all texts, and encoded again where a segment needs it (RFC 3986, section 6.2.2). So
/// `/%6Frders` is `/orders` for every route and guard, and an encoded slash stays inside its segment. The query stays as it came: it is decoded with its
/// parameters' names and values.
struct RequestTarget: Equatable {
    /// Begins with a slash.
    let path: String
    /// What stands after the question mark; nil without one.
    let query: String?

    /// Reads a target in origin or absolute form.
    /// - Throws: `VALIDATION_ERROR` for bad percent-encoding, what is not UTF-8, and control characters; `NOT_FOUND` for a target without a path
    init(_ target: String) throws(APIError) {
        guard let rest = RequestTarget.withoutAuthority(target.utf8[...]) else { throw APIError(.notFound) }
        let end = rest.firstIndex(of: UInt8(ascii: "?")) ?? rest.endIndex
        path = try RequestTarget.spelled(rest[..<end])
        if end < rest.endIndex {
            let query = String(decoding: rest[rest.index(after: end)...], as: UTF8.self)
            // A `#` would end the query for whoever reads the target as an address. Encoded it is a character like others, and what follows it stays.
            self.query = query.utf8.contains(UInt8(ascii: "#")) ? query.replacing("#", with: "%23") : query
        } else {
            self.query = nil
        }
    }

    /// The target in origin form.
    var text: String { query.map { "\(path)?\($0)" } ?? path }

    /// What is left of a target without the scheme and authority of an absolute one; nil for other forms, such as `*`.
    private static func withoutAuthority(_ target: Substring.UTF8View) -> Substring.UTF8View? {
        if target.first == UInt8(ascii: "/") { return target }
        let scheme = target.prefix { byte in
            switch byte | 0x20 {
            case UInt8(ascii: "a")...UInt8(ascii: "z"): true
            default: false
            }
        }
        let rest = target[scheme.endIndex...]
        guard !scheme.isEmpty, rest.starts(with: "://".utf8) else { return nil }
        let authority = rest.dropFirst(3)
        guard let end = authority.firstIndex(where: { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "?") }) else {
            return authority.suffix(0)
        }
        return authority[end...]
    }

    private static func spelled(_ path: Substring.UTF8View) throws(APIError) -> String {
        if path.isEmpty { return "/" }
        // Nearly every path is in its one spelling already.
        if path.allSatisfy({ PercentEncoding.isPlain($0) || $0 == UInt8(ascii: "/") }) { return String(decoding: path, as: UTF8.self) }
        var spelled: [UInt8] = []
        for (index, segment) in path.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).enumerated() {
            if index > 0 { spelled.append(UInt8(ascii: "/")) }
            PercentEncoding.append(segment: try Values.decoded(segment, field: "path", plusIsSpace: false), to: &spelled)
        }
        return String(decoding: spelled, as: UTF8.self)
    }
}
