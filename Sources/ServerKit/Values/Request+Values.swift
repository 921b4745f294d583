public import APIErrors
import HotPath
import HTTPTypes
public import Hummingbird

extension Request {
    /// The body as a JSON object.
    ///
    /// The `Content-Type` must be JSON if it is there; a body without one is taken as JSON. No more than
    /// ``Values/maximumBodyBytes`` are read.
    /// - Throws: `UNSUPPORTED_MEDIA_TYPE`, `PAYLOAD_TOO_LARGE`, `VALIDATION_ERROR`
    public func jsonObject(upTo maximumBytes: Int = Values.maximumBodyBytes) async throws -> JSONObjectReader {
        try JSONObjectReader(try await jsonBody(upTo: maximumBytes))
    }

    /// The bytes of a body that says it is JSON. See ``jsonObject(upTo:)``.
    public func jsonBody(upTo maximumBytes: Int = Values.maximumBodyBytes) async throws -> [UInt8] {
        if let length = headers[.contentLength].flatMap({ Int($0) }), length > maximumBytes {
            throw APIError.payloadTooLarge(maximumBytes)
        }
        if let contentType = headers[.contentType], !isJSONMediaType(contentType) {
            throw APIError(.unsupportedMediaType)
        }
        var bytes: [UInt8] = []
        for try await part in body {
            guard bytes.count + part.readableBytes <= maximumBytes else { throw APIError.payloadTooLarge(maximumBytes) }
            bytes.append(contentsOf: part.readableBytesView)
        }
        return bytes
    }

    /// The `Idempotency-Key`.
    /// - Throws: `VALIDATION_ERROR` if it is missing or malformed
    public func requiredIdempotencyKey() throws(APIError) -> String {
        guard let key = try idempotencyKey() else { throw .missing(field: "Idempotency-Key") }
        return key
    }

    /// The `Idempotency-Key`, or nil if there is none.
    /// - Throws: `VALIDATION_ERROR` if it is malformed, or there are two
    public func idempotencyKey() throws(APIError) -> String? {
        let given = headers[values: .idempotencyKey]
        guard let key = given.first else { return nil }
        // Two lines are refused: joined by a comma, as other fields may be, two keys would make a third one.
        guard given.count == 1 else { throw .invalid(field: "Idempotency-Key", .fieldTwice) }
        return try Values.idempotencyKey(key)
    }

    /// The `Idempotency-Attempt`, 1 when missing.
    public func idempotencyAttempt() throws(APIError) -> Int64 {
        try Values.idempotencyAttempt(headers[.idempotencyAttempt])
    }

    /// Whether the client prefers a 202 (`Prefer: respond-async`, RFC 7240).
    public var prefersAsync: Bool {
        guard let prefer = headers[.prefer] else { return false }
        return prefer.split(separator: ",").contains { entry in
            entry.split(separator: ";").first?.trimmed.lowercased() == "respond-async"
        }
    }

    /// The value of a query parameter; nil if it is missing or empty.
    /// - Throws: `VALIDATION_ERROR` if it is longer than `maximumLength` or holds a control character
    public func query(_ name: String, maximumLength: Int = 200) throws(APIError) -> String? {
        guard let value = try QueryParameters(uri.query)[name], !value.isEmpty else { return nil }
        return try Values.text(value, field: name, length: 1...maximumLength)
    }

    /// Whether a query parameter that is a switch is on: its name alone, `true` or `1`. It is off when it is missing, `false` or `0`.
    public func querySwitch(_ name: String) throws(APIError) -> Bool {
        guard let value = try QueryParameters(uri.query)[name] else { return false }
        if value.isEmpty { return true }
        guard let given = QuerySwitch(rawValue: value) else { throw .notAChoice(field: name, QuerySwitch.self) }
        return given == .true || given == .one
    }

    /// A query parameter that is one of an enumeration's raw values; nil if it is missing or empty.
    public func query<Choice: RawRepresentable & CaseIterable>(_ name: String, as type: Choice.Type) throws(APIError) -> Choice?
    where Choice.RawValue == String {
        guard let text = try self.query(name) else { return nil }
        guard let choice = Choice(rawValue: text) else { throw .notAChoice(field: name, type) }
        return choice
    }

    /// A query parameter that is a whole number; nil if it is missing or empty.
    public func queryInt(_ name: String, in range: ClosedRange<Int64>) throws(APIError) -> Int64? {
        try Values.number(try query(name), field: name, in: range)
    }

    /// `page` and `size`.
    public func paging(defaultSize: Int64 = 20) throws(APIError) -> Paging {
        Paging(
            page: try queryInt("page", in: Values.pageRange) ?? 0,
            size: try queryInt("size", in: Values.pageSizeRange) ?? defaultSize
        )
    }
}

extension RequestContext {
    /// The id in the path; a path that has none is answered with `code`, a 404.
    public func pathID(_ name: String = "id", orThrow code: APIErrorCode) throws(APIError) -> Int64 {
        guard let text = parameters.get(name), let id = Values.id(text) else { throw APIError(code) }
        return id
    }

    /// What a text in the path is read as; a path whose text is nothing of the kind is answered with `code`, a 404.
    public func path<Value>(
        _ name: String = "id",
        as read: (String) -> Value?,
        orThrow code: APIErrorCode
    ) throws(APIError) -> Value {
        guard let text = parameters.get(name), let value = read(text) else { throw APIError(code) }
        return value
    }

    /// The key in the path, written as in an `Idempotency-Key`; a path that has none is answered with `code`, a 404.
    public func pathKey(_ name: String = "key", orThrow code: APIErrorCode) throws(APIError) -> String {
        guard let text = parameters.get(name) else { throw APIError(code) }
        do {
            return try Values.idempotencyKey(text, field: name)
        } catch {
            // No request can have been committed under it.
            throw APIError(code)
        }
    }

    /// A text in the path, with 1 to so many characters and no control character; else `code`, a 404.
    public func pathText(_ name: String, length: ClosedRange<Int>, orThrow code: APIErrorCode) throws(APIError) -> String {
        guard let text = parameters.get(name) else { throw APIError(code) }
        do {
            return try Values.text(text, field: name, length: length)
        } catch {
            throw APIError(code)
        }
    }
}

/// What a query parameter that is a switch may say.
private enum QuerySwitch: String, CaseIterable {
    case `true`, `false`
    case one = "1"
    case zero = "0"
}

extension Request: RequestFields {
    /// The value of a field, nil if it is missing; its values joined by commas if it is there more than once.
    package func field(_ name: StaticString) -> String? { HTTPField.Name(name.description).flatMap { headers[$0] } }
}
