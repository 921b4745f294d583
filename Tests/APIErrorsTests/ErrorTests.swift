import HotPath
import StockContract
import StrictJSON
import Testing

@testable import APIErrors

@Suite struct ErrorTests {
    @Test(
        arguments: [
            (nil, Language.english), ("", .english), ("ko", .korean), ("ko-KR", .korean), ("KO-kr,en;q=0.5", .korean), ("en,ko", .english),
            ("ko,en", .korean), ("en;q=0.8,ko;q=0.9", .korean), ("en;q=0.9,ko;q=0.8", .english), ("fr,de", .english),
            ("fr,ko;q=0.1", .korean),
            ("*", .english), ("*,en;q=0", .korean), ("en;q=0", .english), ("ko;q=0,*", .english), ("ko;q=0", .english), ("kor", .english),
            ("ko;q=1.001", .english), ("ko;q=abc", .english), ("en;q=0.123,ko;q=0.124", .korean),
            ("ko-KR;q=0.2,en;q=0.5,ko;q=0.7", .korean),
            (" ko ; q=0.5 , en ; q=0.4", .korean), (";;;,,,", .english), ("fr;q=1, *;q=0.5, ko;q=0.4", .english),
        ] as [(String?, Language)]
    )
    func languages(header: String?, language: Language) {
        #expect(Language.negotiated(header) == language)
    }

    @Test(
        arguments: [
            (nil, ErrorFormat.json), ("*/*", .json), ("application/json", .json), ("application/problem+json", .problem),
            ("application/json, application/problem+json", .problem), ("application/problem+json;q=0", .json),
            ("application/problem+json;q=0.5, application/json", .json), ("application/problem+json;q=0.5, */*", .json),
            ("application/problem+json, */*;q=0.1", .problem), ("APPLICATION/PROBLEM+JSON; q=1.0", .problem), ("text/html", .json),
            ("application/problem+json, application/json;q=0.9, */*", .problem),
        ] as [(String?, ErrorFormat)]
    )
    func formats(header: String?, format: ErrorFormat) {
        #expect(ErrorFormat.negotiated(header) == format)
    }

    @Test func theShape() {
        let rendered = APIError(.insufficientStock, details: ["remainingStock": 2]).render(accept: nil, language: .english)
        #expect(rendered.status == 400)
        #expect(rendered.contentType == "application/json")
        #expect(
            String(decoding: rendered.body, as: UTF8.self)
                == #"{"error":"INSUFFICIENT_STOCK","message":"There is not enough stock.","details":{"remainingStock":2}}"#
        )
        let korean = APIError(.insufficientStock).render(accept: "*/*", language: .korean)
        #expect(String(decoding: korean.body, as: UTF8.self) == #"{"error":"INSUFFICIENT_STOCK","message":"재고가 부족합니다.","details":null}"#)
    }

    @Test func aProblemDocument() throws {
        let rendered = APIError(.lockTimeout, retryAfter: .milliseconds(1200)).render(
            accept: "application/problem+json",
            language: .english
        )
        #expect(rendered.contentType == "application/problem+json")
        #expect(rendered.retryAfterSeconds == 2)
        let value = try JSONDocument(rendered.body).value
        #expect(value["type"] == "about:blank")
        #expect(value["title"] == "Service Unavailable")
        #expect(value["status"] == 503)
        #expect(value["detail"] == "The stock is busy. Try again with the same key.")
        #expect(value["error"] == "LOCK_TIMEOUT")
        #expect(value["details"] == JSONValue.null)
    }

    @Test func messagesTakeTheirWordsFromTheDetails() {
        let error = APIError.notWhole(field: "quantity", range: 1...10)
        #expect(error.message.text(.english, details: error.details) == "quantity must be a whole number from 1 to 10.")
        #expect(error.message.text(.korean, details: error.details) == "quantity 값은 1 이상 10 이하의 정수여야 합니다.")
        #expect(ErrorMessage(en: "a {b} {", ko: "").text(.english, details: nil) == "a {b} {")
    }

    @Test func everyCodeHasAStatusAndBothLanguagesAndEvery503SaysWhenToRetry() {
        for code in APIErrorCode.general + APIErrorCode.shop {
            #expect((400..<600).contains(code.status))
            #expect(!code.defaultMessage.english.isEmpty && !code.defaultMessage.korean.isEmpty)
            #expect((APIError(code).retryAfter != nil) == (code.status == 503))
        }
        let table: [(APIErrorCode, Int)] = [
            (.validationError, 400), (.insufficientStock, 400), (.invalidState, 400), (.unauthorized, 401), (.forbidden, 403),
            (.productNotFound, 404), (.orderNotFound, 404), (.notFound, 404), (.methodNotAllowed, 405), (.requestTimeout, 408),
            (.keyClosed, 409),
            (.requestInProgress, 409), (.payloadTooLarge, 413), (.unsupportedMediaType, 415), (.misdirected, 421), (.keyReused, 422),
            (.dependencyFailed, 424),
            (.overloaded, 503), (.lockTimeout, 503), (.unavailable, 503), (.internalError, 500), (.notImplemented, 501),
        ]
        #expect(table.count == (APIErrorCode.general + APIErrorCode.shop).count)
        #expect(Set(table.map(\.0)) == Set(APIErrorCode.general + APIErrorCode.shop))
        for (code, status) in table { #expect(code.status == status) }
    }
}

@Suite struct ValuesTests {
    @Test(
        arguments: [
            ("1", 1), ("9223372036854775807", Int64.max), ("9223372036854775808", nil), ("0", nil), ("01", nil), ("-1", nil), ("+1", nil),
            ("", nil),
            ("1a", nil), ("１", nil), ("99999999999999999999", nil), ("1 ", nil),
        ] as [(String, Int64?)]
    )
    func ids(text: String, id: Int64?) {
        #expect(Values.id(text) == id)
    }

    @Test(arguments: [
        ("CATALOG-002", true), ("a", true), ("1a", true), ("123", false), ("", false), ("a b", false), ("é", false), ("1.2", true),
        ("_", true),
        (String(repeating: "a", count: 64), true), (String(repeating: "a", count: 65), false), ("a/b", false),
    ])
    func codes(text: String, isCode: Bool) {
        #expect(Values.isCode(text) == isCode)
        #expect(IDOrCode(text) == (isCode ? .code(text) : Values.id(text).map { .id($0) }))
    }

    @Test func idempotencyHeaders() throws {
        #expect(try Values.idempotencyKey("DEC-1") == "DEC-1")
        #expect(try Values.idempotencyKey(String(repeating: "k", count: 255)).count == 255)
        for key in ["", String(repeating: "k", count: 256), "a\tb", "é", "a\u{7f}"] {
            #expect(throws: APIError.self) { try Values.idempotencyKey(key) }
        }
        #expect(try Values.idempotencyAttempt(nil) == 1)
        #expect(try Values.idempotencyAttempt("2") == 2)
        for attempt in ["0", "-1", "x", "", "1.0"] { #expect(throws: APIError.self) { try Values.idempotencyAttempt(attempt) } }
    }

    @Test func pages() {
        #expect(Paging(page: 2, size: 20).offset == 40)
        #expect(Paging(size: 20).totalPages(totalElements: 41) == 3)
        #expect(Paging(size: 20).totalPages(totalElements: 0) == 0)
    }
}
