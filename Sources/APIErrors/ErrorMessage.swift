public import StrictJSON

/// A message in every language, with `{name}` where a member of the error's `details` goes.
///
/// There is no message in one language only: the initializer asks for all of them.
public struct ErrorMessage: Sendable, Equatable {
    /// The English text.
    public let english: String
    /// The Korean text.
    public let korean: String

    /// Makes a message.
    public init(en english: String, ko korean: String) {
        self.english = english
        self.korean = korean
    }

    /// The text in a language, its `{name}`s filled from `details`. A name that `details` lacks stays as it is.
    public func text(_ language: Language, details: JSONValue) -> String {
        let template =
            switch language {
            case .english: english
            case .korean: korean
            }
        guard template.utf8.contains(UInt8(ascii: "{")) else { return template }
        var result = ""
        var rest = template[...]
        while let open = rest.firstIndex(of: "{"), let close = rest[open...].firstIndex(of: "}") {
            result += rest[..<open]
            let name = String(rest[rest.index(after: open)..<close])
            switch details[name] {
            case .string(let text): result += text
            case .int(let int): result += String(int)
            case .array(let values):
                result += values.map { if case .string(let text) = $0 { text } else { "" } }.joined(separator: ", ")
            default: result += "{\(name)}"
            }
            rest = rest[rest.index(after: close)...]
        }
        return result + rest
    }
}

extension ErrorMessage {
    // MARK: Of the codes

    package static let validation = ErrorMessage(en: "The request is not valid.", ko: "요청이 올바르지 않습니다.")
    package static let unauthorized = ErrorMessage(en: "A token is required.", ko: "인증 토큰이 필요합니다.")
    package static let forbidden = ErrorMessage(en: "This is not allowed.", ko: "허용되지 않은 요청입니다.")
    package static let notFound = ErrorMessage(en: "There is nothing here.", ko: "요청한 자원을 찾을 수 없습니다.")
    package static let methodNotAllowed = ErrorMessage(
        en: "The method is not allowed here.",
        ko: "허용되지 않은 메서드입니다."
    )
    package static let requestTimeout = ErrorMessage(
        en: "The request did not come in time.",
        ko: "요청이 제한 시간 안에 도착하지 않았습니다."
    )
    package static let payloadTooLarge = ErrorMessage(en: "The body is too large.", ko: "요청 본문이 너무 큽니다.")
    package static let unsupportedMediaType = ErrorMessage(
        en: "The body must be application/json.",
        ko: "요청 본문은 application/json이어야 합니다."
    )
    package static let overloaded = ErrorMessage(
        en: "The server is overloaded. Try again with the same key.",
        ko: "서버가 혼잡합니다. 같은 키로 다시 시도해 주세요."
    )
    package static let unavailable = ErrorMessage(
        en: "The service is not available. Try again with the same key.",
        ko: "서비스를 사용할 수 없습니다. 같은 키로 다시 시도해 주세요."
    )
    package static let internalError = ErrorMessage(en: "Something went wrong.", ko: "내부 오류가 발생했습니다.")

    // MARK: Of VALIDATION_ERROR

    package static let malformedJSON = ErrorMessage(en: "The body is not well-formed JSON.", ko: "본문이 올바른 JSON이 아닙니다.")
    package static let malformedRequest = ErrorMessage(en: "The request is malformed.", ko: "요청 형식이 올바르지 않습니다.")
    package static let notAnObject = ErrorMessage(en: "The body must be a JSON object.", ko: "본문은 JSON 객체여야 합니다.")
    package static let fieldMissing = ErrorMessage(en: "{field} is required.", ko: "{field} 값이 필요합니다.")
    package static let fieldInvalid = ErrorMessage(en: "{field} is not valid.", ko: "{field} 값이 올바르지 않습니다.")
    package static let fieldNotWhole = ErrorMessage(
        en: "{field} must be a whole number from {minimum} to {maximum}.",
        ko: "{field} 값은 {minimum} 이상 {maximum} 이하의 정수여야 합니다."
    )
    package static let fieldNotText = ErrorMessage(en: "{field} must be a text.", ko: "{field} 값은 문자열이어야 합니다.")
    package static let fieldNotArray = ErrorMessage(
        en: "{field} must be a list of {minimum} to {maximum} objects.",
        ko: "{field} 값은 {minimum}개 이상 {maximum}개 이하의 객체 목록이어야 합니다."
    )
    package static let fieldLength = ErrorMessage(
        en: "{field} must have {minimum} to {maximum} characters.",
        ko: "{field} 값은 {minimum}자 이상 {maximum}자 이하여야 합니다."
    )
    package static let fieldControl = ErrorMessage(
        en: "{field} must not contain control characters.",
        ko: "{field} 값에는 제어 문자를 사용할 수 없습니다."
    )
    package static let fieldChoice = ErrorMessage(
        en: "{field} must be one of {allowed}.",
        ko: "{field} 값은 다음 중 하나여야 합니다: {allowed}."
    )
    package static let fieldKey = ErrorMessage(
        en: "{field} must have 1 to 255 printable ASCII characters.",
        ko: "{field} 값은 출력 가능한 ASCII 문자 1자 이상 255자 이하여야 합니다."
    )
    package static let fieldKeyQuotes = ErrorMessage(
        en: #"{field} begins with a quote, so it must be a string in quotes, with \" and \\ as its only escapes and nothing behind it."#,
        ko: #"{field} 값이 따옴표로 시작하면 따옴표로 끝나는 문자열이어야 하며 \"와 \\만 이스케이프로 쓸 수 있습니다."#
    )
    package static let fieldTwice = ErrorMessage(en: "{field} was given more than once.", ko: "{field} 값은 한 번만 보낼 수 있습니다.")
    package static let fieldEncoding = ErrorMessage(
        en: "{field} must be UTF-8 in percent-encoding.",
        ko: "{field} 값은 퍼센트 인코딩된 UTF-8이어야 합니다."
    )
    package static let unknownQueryParameters = ErrorMessage(
        en: "There is no query parameter {unknown} here, only {known}.",
        ko: "여기에는 {unknown} 쿼리 매개변수가 없습니다. 사용할 수 있는 매개변수: {known}."
    )
    package static let noQueryParameters = ErrorMessage(
        en: "This path takes no query parameters, but {unknown} was given.",
        ko: "여기에는 {unknown} 쿼리 매개변수가 없으며 다른 매개변수도 사용할 수 없습니다."
    )
    package static let unknownMembers = ErrorMessage(
        en: "The body must not have {unknown}, only {known}.",
        ko: "본문에 {unknown} 항목을 쓸 수 없습니다. 사용할 수 있는 항목: {known}."
    )
    package static let nothingToChange = ErrorMessage(en: "There is nothing to change.", ko: "변경할 항목이 없습니다.")
    package static let notReady = ErrorMessage(en: "Not ready.", ko: "아직 준비되지 않았습니다.")
}
