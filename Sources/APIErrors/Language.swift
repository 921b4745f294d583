/// The languages that messages are written in.
public enum Language: String, Sendable, CaseIterable {
    /// English, which is answered when nothing else fits.
    case english = "en"
    /// Korean.
    case korean = "ko"

    /// The language that an `Accept-Language` header asks for: the supported one of the highest quality, the earlier of equals.
    ///
    /// `ko-KR` counts as `ko`; `*` stands for every language the header does not name; `q=0` rules one out (RFC 9110, 12.5.4).
    /// A header that cannot be read, or that rules both out, gives English. At most 32 entries are looked at.
    public static func negotiated(_ acceptLanguage: String?) -> Language {
        guard let acceptLanguage, !acceptLanguage.isEmpty else { return .english }
        var qualities: [Language: (quality: Int, order: Int)] = [:]
        var anyOther: (quality: Int, order: Int)?
        for (order, item) in QualityList(acceptLanguage).enumerated() {
            if item.name == "*" {
                anyOther = anyOther ?? (item.quality, order)
                continue
            }
            for language in Language.allCases where item.name == language.rawValue || item.name.hasPrefix(language.rawValue + "-") {
                // `ko-KR;q=0.5, ko` asks for Korean with 1: the best of a language's entries counts.
                if let known = qualities[language], known.quality >= item.quality { continue }
                qualities[language] = (item.quality, order)
            }
        }
        var best: (language: Language, quality: Int, order: Int)?
        for language in Language.allCases {
            guard let (quality, order) = qualities[language] ?? anyOther, quality > 0 else { continue }
            if let best, (best.quality, -best.order) >= (quality, -order) { continue }
            best = (language, quality, order)
        }
        return best?.language ?? .english
    }
}

/// The shapes an error's body can have.
public enum ErrorFormat: Sendable, Equatable {
    /// `application/json`: `{error, message, details}`.
    case json
    /// `application/problem+json`: RFC 9457.
    case problem

    /// The shape that an `Accept` header asks for: RFC 9457 if it names `application/problem+json` with no less quality
    /// than it gives `application/json` (by name or by a wildcard it names as well).
    public static func negotiated(_ accept: String?) -> ErrorFormat {
        // Nearly every request says nothing or */*.
        guard let accept, accept.utf8.count > 3 else { return .json }
        var problem = 0
        var json = 0
        var jsonByName: Int?
        for item in QualityList(accept) {
            switch item.name {
            case "application/problem+json": problem = max(problem, item.quality)
            case "application/json": jsonByName = max(jsonByName ?? 0, item.quality)
            case "application/*", "*/*": json = max(json, item.quality)
            default: break
            }
        }
        return problem > 0 && problem >= (jsonByName ?? json) ? .problem : .json
    }
}

/// The entries of an `Accept…` header: lower-cased name and quality in thousandths. An entry whose quality cannot be read counts with 0.
struct QualityList: Sequence, IteratorProtocol {
    struct Item {
        var name: String
        var quality: Int
    }

    /// More entries than any client sends; the rest is not looked at.
    private static let limit = 32
    private var entries: ArraySlice<Substring>

    init(_ header: String) {
        entries = header.split(separator: ",", maxSplits: QualityList.limit)[...].prefix(QualityList.limit)
    }

    mutating func next() -> Item? {
        guard let entry = entries.popFirst() else { return nil }
        let parts = entry.split(separator: ";", omittingEmptySubsequences: false)
        var quality = 1000
        for part in parts.dropFirst() {
            let parameter = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parameter.count == 2, parameter[0].trimmed.lowercased() == "q" else { continue }
            quality = QualityList.thousandths(parameter[1].trimmed)
        }
        return Item(name: (parts.first ?? "").trimmed.lowercased(), quality: quality)
    }

    /// `0`, `0.5`, `1.000`: one digit and up to three decimals.
    private static func thousandths(_ text: Substring) -> Int {
        let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        guard let whole = parts.first, whole == "0" || whole == "1" else { return 0 }
        var value = whole == "1" ? 1000 : 0
        if parts.count == 2 {
            guard parts[1].utf8.count <= 3, parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return 0 }
            var unit = 100
            for digit in parts[1].utf8 {
                value += Int(digit - 0x30) * unit
                unit /= 10
            }
        }
        return value <= 1000 ? value : 0
    }
}

extension StringProtocol where SubSequence == Substring {
    /// Without spaces and tabs at both ends.
    package var trimmed: Substring {
        var text = self[...]
        while let first = text.utf8.first, first == 0x20 || first == 0x09 { text = text.dropFirst() }
        while let last = text.utf8.last, last == 0x20 || last == 0x09 { text = text.dropLast() }
        return text
    }
}
