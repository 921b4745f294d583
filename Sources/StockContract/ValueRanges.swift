package import APIErrors

/// The ranges and forms of the shop's values, in requests and messages alike.
extension Values {
    /// What one request may take or give back.
    package static let quantityRange: ClosedRange<Int64> = 1...1_000_000_000
    /// A product's stock.
    package static let stockRange: ClosedRange<Int64> = 0...1_000_000_000_000
    /// Units left, as an answer or a message tells them.
    package static let remainingRange: ClosedRange<Int64> = 0...Int64.max
    /// Prices, in the currency's smallest unit.
    package static let priceRange: ClosedRange<Int64> = 0...1_000_000_000_000
    /// Characters of a product's name.
    package static let nameLength = 1...200
    /// Characters of a buyer's or user's id.
    package static let userIDLength = 1...128
    /// Characters of a key.
    package static let keyLength = 1...255

    /// Whether a text is a product code: 1 to 64 of `A-Z a-z 0-9 . _ -`, at least one of them no digit.
    package static func isCode(_ text: some StringProtocol) -> Bool {
        guard (1...64).contains(text.utf8.count) else { return false }
        var allDigits = true
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39: break
            case 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"): allDigits = false
            default: return false
            }
        }
        return !allDigits
    }

    /// Checks a product code in a body.
    /// - Throws: `VALIDATION_ERROR`
    package static func code(_ text: String, field: String = "code") throws(APIError) -> String {
        guard isCode(text) else { throw .invalid(field: field, .fieldCode) }
        return text
    }
}

/// What a path's `{id}` names: a product by id or by code.
package enum IDOrCode: Sendable, Hashable {
    /// Digits alone.
    case id(Int64)
    /// Anything else that a code may be.
    case code(String)

    /// Reads a path component; nil if it is neither.
    package init?(_ text: String) {
        if let id = Values.id(text) {
            self = .id(id)
        } else if Values.isCode(text) {
            self = .code(text)
        } else {
            return nil
        }
    }
}

extension ErrorMessage {
    static let fieldCode = ErrorMessage(
        en: "{field} must have 1 to 64 of A-Z a-z 0-9 . _ -, at least one of them no digit.",
        ko: "{field} 값은 A-Z a-z 0-9 . _ - 중 1자 이상 64자 이하여야 하며 숫자만으로 이루어질 수 없습니다."
    )
}
