public import HTTPTypes

extension HTTPField.Name {
    /// `Idempotency-Key`: names a request, which is done once however often it is sent.
    public static let idempotencyKey = HTTPField.Name.known("Idempotency-Key")
    /// `Idempotency-Attempt`: how often the client has sent the key, this time included; above 1 it is a repeat.
    public static let idempotencyAttempt = HTTPField.Name.known("Idempotency-Attempt")
    /// `Idempotency-Since`: when the order of a decrease was made, as an RFC 3339 time.
    public static let idempotencySince = HTTPField.Name.known("Idempotency-Since")
    /// `Idempotency-Replayed`: the answer repeats the result of an earlier request with the same key.
    public static let idempotencyReplayed = HTTPField.Name.known("Idempotency-Replayed")
    /// `Prefer` (RFC 7240): `respond-async` asks for a 202.
    public static let prefer = HTTPField.Name.known("Prefer")
    /// `X-Request-Id`: the request's id in answers, in logs and in the calls that it causes.
    public static let requestID = HTTPField.Name.known("X-Request-Id")
    /// `traceparent` (W3C Trace Context)
    public static let traceparent = HTTPField.Name.known("traceparent")

    /// A name that is a token for sure, because it stands in the source text above.
    private static func known(_ name: String) -> HTTPField.Name {
        guard let name = HTTPField.Name(name) else { preconditionFailure("\(name) is no field name") }
        return name
    }
}
