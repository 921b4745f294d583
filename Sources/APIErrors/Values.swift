import StrictJSON

/// The ranges and forms of values in requests, in one place.
public enum Values {
    /// Ids: 1 to 2^63-1.
    public static let idRange: ClosedRange<Int64> = 1...Int64.max
    /// Characters of a reason that a caller gives.
    public static let reasonLength = 1...200
    /// Bytes of a request's body.
    public static let maximumBodyBytes = 64 * 1024
    /// Pages are counted from 0. The bound keeps `page * size` far inside 64 bits.
    public static let pageRange: ClosedRange<Int64> = 0...1_000_000_000
    /// Rows of a page.
    public static let pageSizeRange: ClosedRange<Int64> = 1...100
    /// The values of an `Idempotency-Attempt`: the caller's first attempt is 1.
    public static let attemptRange: ClosedRange<Int64> = 1...1_000_000_000

    /// Checks a text: so many characters (Unicode scalars), none of them a control character (general category Cc).
    @discardableResult
    public static func text(_ text: String, field: @autoclosure () -> String, length: ClosedRange<Int>) throws(APIError) -> String {
        var count = 0
        for scalar in text.unicodeScalars {
            count += 1
            if scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) { throw .invalid(field: field(), .fieldControl) }
        }
        guard length.contains(count) else {
            throw .invalid(
                field: field(),
                .fieldLength,
                JSONMember("minimum", .int(Int64(length.lowerBound))),
                JSONMember("maximum", .int(Int64(length.upperBound)))
            )
        }
        return text
    }

    /// Decodes percent-encoded bytes once (RFC 3986, section 2.1) and checks the text as ``text(_:field:length:)`` does.
    /// - Parameter plusIsSpace: whether a plus stands for a space, as a form writes it in a query; in a path it is a plus
    /// - Throws: `VALIDATION_ERROR`, also for a `%` without two hexadecimal digits and for bytes that are not UTF-8
    package static func decoded(
        _ bytes: some Sequence<UInt8>,
        field: String,
        length: ClosedRange<Int> = 0...Int.max,
        plusIsSpace: Bool
    ) throws(APIError) -> String {
        guard let text = PercentEncoding.decode(bytes, plusIsSpace: plusIsSpace) else { throw .invalid(field: field, .fieldEncoding) }
        return try self.text(text, field: field, length: length)
    }

    /// The id that a text spells, or nil: digits without sign and leading zeros, 1 to 2^63-1.
    public static func id(_ text: some StringProtocol) -> Int64? {
        guard let first = text.utf8.first, (UInt8(ascii: "1")...UInt8(ascii: "9")).contains(first), text.utf8.count <= 19 else {
            return nil
        }
        return digits(text)
    }

    /// The same of bytes.
    package static func id(_ text: UnsafeRawBufferPointer) -> Int64? {
        guard let first = text.first, (UInt8(ascii: "1")...UInt8(ascii: "9")).contains(first) else { return nil }
        return digits(text)
    }

    private static func digits(_ text: some StringProtocol) -> Int64? {
        var text = String(text)
        return text.withUTF8 { self.digits(UnsafeRawBufferPointer($0)) }
    }

    /// A whole number of at most 19 digits, without sign.
    private static func digits(_ text: UnsafeRawBufferPointer) -> Int64? {
        guard !text.isEmpty, text.count <= 19 else { return nil }
        var value: Int64 = 0
        for byte in text {
            guard (0x30...0x39).contains(byte) else { return nil }
            let (scaled, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, overflow2) = scaled.addingReportingOverflow(Int64(byte - 0x30))
            if overflow || overflow2 { return nil }
            value = sum
        }
        return value
    }

    /// A number in a header or a query, or nil if there is none.
    package static func number(_ text: (some StringProtocol)?, field: String, in range: ClosedRange<Int64>) throws(APIError) -> Int64? {
        guard let text else { return nil }
        guard let value = digits(text), range.contains(value) else { throw .notWhole(field: field, range: range) }
        return value
    }

    /// The key that the value of an `Idempotency-Key` names: 1 to 255 printable ASCII characters.
    ///
    /// A value in quotes is a string of structured fields (RFC 8941, section 3.3.3), as draft-ietf-httpapi-idempotency-key-header writes keys: `"k"` and `k`
    /// name the same key.
    /// - Throws: `VALIDATION_ERROR`, also for a value that begins with a quote and is no such string
    public static func idempotencyKey(_ text: String, field: String = "Idempotency-Key") throws(APIError) -> String {
        let key = text.utf8.first == UInt8(ascii: "\"") ? try unquoted(text, field: field) : text
        guard (1...255).contains(key.utf8.count), key.utf8.allSatisfy({ (0x20...0x7E).contains($0) }) else {
            throw .invalid(field: field, .fieldKey)
        }
        return key
    }

    /// What a string of structured fields holds. Its only escapes are `\"` and `\\`; parameters after it are not taken.
    private static func unquoted(_ text: String, field: String) throws(APIError) -> String {
        var bytes: [UInt8] = []
        var rest = text.utf8.dropFirst()
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "\""):
                guard rest.isEmpty else { throw .invalid(field: field, .fieldKeyQuotes) }
                return String(decoding: bytes, as: UTF8.self)
            case UInt8(ascii: "\\"):
                guard let escaped = rest.popFirst(), escaped == UInt8(ascii: "\"") || escaped == UInt8(ascii: "\\") else {
                    throw .invalid(field: field, .fieldKeyQuotes)
                }
                bytes.append(escaped)
            default: bytes.append(byte)
            }
        }
        throw .invalid(field: field, .fieldKeyQuotes)
    }

    /// The value of an `Idempotency-Since`, in microseconds since the Unix epoch; nil when missing.
    /// - Throws: `VALIDATION_ERROR` if it is no time of RFC 3339
    public static func idempotencySince(_ text: String?) throws(APIError) -> Int64? {
        guard let text else { return nil }
        guard let time = Timestamp(rfc3339: text) else { throw .invalid(field: "Idempotency-Since") }
        return time.microsecondsSinceEpoch
    }

    /// The value of an `Idempotency-Attempt`: 1 when missing.
    public static func idempotencyAttempt(_ text: String?) throws(APIError) -> Int64 {
        try number(text, field: "Idempotency-Attempt", in: attemptRange) ?? 1
    }
}

/// Which page of a list is asked for.
public struct Paging: Sendable, Equatable {
    /// Counted from 0.
    public var page: Int64
    /// Rows of a page, 1 to 100.
    public var size: Int64

    /// Makes a page.
    public init(page: Int64 = 0, size: Int64 = 20) {
        self.page = page
        self.size = size
    }

    /// Rows before the page.
    public var offset: Int64 { page * size }

    /// How many pages so many rows fill.
    public func totalPages(totalElements: Int64) -> Int64 {
        (totalElements + size - 1) / size
    }
}
