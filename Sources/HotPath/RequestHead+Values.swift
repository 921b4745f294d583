public import APIErrors

extension RequestHead {
    /// Whether `Content-Type` names JSON, by the rule of the router's routes.
    public var saysJSON: Bool {
        // Nearly all clients send exactly this, which can be compared without making a text.
        has("content-type", "application/json") || (field("content-type").map { isJSONMediaType($0) } ?? false)
    }

    /// The `Idempotency-Key`, or nil if there is none, read as the router's routes read it.
    /// - Throws: `VALIDATION_ERROR` where it is malformed, or may have been given twice: the request is the router's to judge then
    public func idempotencyKey() throws(APIError) -> String? {
        guard let text = field("idempotency-key") else { return nil }
        // Two header lines come joined by a comma here. A key may have a comma of its own; the router sees the lines.
        if text.utf8.contains(UInt8(ascii: ",")) { throw .invalid(field: "Idempotency-Key", .fieldTwice) }
        return try Values.idempotencyKey(text)
    }
}
