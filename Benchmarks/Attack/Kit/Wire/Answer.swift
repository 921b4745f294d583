import Foundation

/// One HTTP answer as it came.
struct Answer: Sendable, Equatable {
    /// How the body's end was known.
    enum Framing: Sendable, Equatable {
        case none, length, chunked
        /// The body ended with the connection.
        case connection
    }

    var version = "HTTP/1.1"
    var status: Int
    var fields: [Field] = []
    var body: [UInt8] = []
    var framing = Framing.length

    /// A header field as it came.
    struct Field: Sendable, Equatable {
        var name: String
        var value: String
    }

    /// The values of a field, in the order they came.
    func values(_ name: String) -> [String] {
        fields.filter { $0.name.lowercased() == name }.map(\.value)
    }

    var isInterim: Bool { status < 200 }
    var isSuccess: Bool { (200..<300).contains(status) }
    var requestID: String? { values("x-request-id").first }

    /// Whether the server said that it closes the connection behind this answer.
    var announcesClose: Bool {
        let options = values("connection").flatMap { $0.split(separator: ",") }.map { $0.trimmingCharacters(in: .whitespaces).lowercased() }
        return options.contains("close") || (version == "HTTP/1.0" && !options.contains("keep-alive"))
    }

    /// Why this is not the contract's shape of an error, `{error, message, details}` as JSON; nil if it is.
    var errorShapeFault: String? {
        let type = values("content-type").first ?? ""
        guard type.hasPrefix("application/json") || type.hasPrefix("application/problem+json") else {
            return body.isEmpty ? "an empty body" : "Content-Type \"\(type)\": \(body.latin1.shown(limit: 40))"
        }
        guard let object = try? JSONSerialization.jsonObject(with: Data(body)) as? [String: Any] else {
            return "no JSON object: \(body.latin1.shown(limit: 40))"
        }
        guard let code = object["error"] as? String, !code.isEmpty else { return "no member error" }
        let isProblem = type.hasPrefix("application/problem+json")
        guard let text = object[isProblem ? "detail" : "message"] as? String, !text.isEmpty else { return "no member message" }
        return object.keys.contains("details") ? nil : "no member details"
    }
}

/// Why bytes are no HTTP answer.
enum AnswerFault: Error, Equatable, CustomStringConvertible {
    /// The bytes do not begin with a status line.
    case notHTTP(String)
    case field(String)
    case framing(String)
    /// The connection ended within an answer.
    case cutOff
    case tooLarge

    var description: String {
        switch self {
        case .notHTTP(let text): "no status line: \(text)"
        case .field(let text): "a malformed header field: \(text)"
        case .framing(let text): text
        case .cutOff: "the connection ended within an answer"
        case .tooLarge: "an answer that is too large"
        }
    }
}
