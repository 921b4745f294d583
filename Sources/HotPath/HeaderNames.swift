public import HTTPTypes

extension HTTPField.Name {
    /// `Idempotency-Key`
    public static let idempotencyKey = HTTPField.Name.known("Idempotency-Key")
    /// `Idempotency-Attempt`
    public static let idempotencyAttempt = HTTPField.Name.known("Idempotency-Attempt")
    /// `Idempotency-Since`
    public static let idempotencySince = HTTPField.Name.known("Idempotency-Since")
    /// `Idempotency-Replayed`
    public static let idempotencyReplayed = HTTPField.Name.known("Idempotency-Replayed")
    /// `Prefer` (RFC 7240)
    public static let prefer = HTTPField.Name.known("Prefer")
    /// `X-Request-Id`
    public static let requestID = HTTPField.Name.known("X-Request-Id")
    /// `traceparent` (W3C Trace Context)
    public static let traceparent = HTTPField.Name.known("traceparent")

    /// A name that is a token for sure, because it stands in the source text above.
    private static func known(_ name: String) -> HTTPField.Name {
        guard let name = HTTPField.Name(name) else { preconditionFailure("\(name) is no field name") }
        return name
    }
}
