package import APIErrors

/// The header fields of a request, however it was read: on the hot path or for the router. Both readers use this, so that a field means the same in both.
package protocol RequestFields {
    /// The value of a field, nil if it is missing.
    /// - Parameter name: in lower case
    func field(_ name: StaticString) -> String?

    /// The `Idempotency-Key`, nil if it is missing.
    /// - Throws: `VALIDATION_ERROR` where it is malformed, or was given twice
    func idempotencyKey() throws(APIError) -> String?
}

extension RequestHead: RequestFields {}
