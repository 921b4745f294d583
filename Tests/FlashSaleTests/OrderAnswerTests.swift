import Testing

@testable import FlashSaleKit

@Suite("An order's answer")
struct OrderAnswerTests {
    @Test func anAcceptedOrderIsAPromiseWhateverItsState() {
        func outcome(_ status: Int, _ body: String) -> AttemptOutcome { AttemptOutcome(acceptance: status, body: body.utf8) }
        #expect(outcome(202, #"{"id":7,"status":"PENDING"}"#) == .accepted(orderID: 7))
        #expect(outcome(200, #"{"id":7,"status":"FAILED","failReason":"INSUFFICIENT_STOCK"}"#) == .accepted(orderID: 7))
        #expect(outcome(202, "{}") == .unknown("MALFORMED_ANSWER"))
        #expect(outcome(400, #"{"error":"INSUFFICIENT_STOCK"}"#) == .soldOut)
        #expect(outcome(501, #"{"error":"NOT_IMPLEMENTED"}"#) == .failed("NOT_IMPLEMENTED"))
        #expect(outcome(501, "") == .unknown("HTTP_501"))
        #expect(outcome(503, #"{"error":"OVERLOADED"}"#) == .unknown("OVERLOADED"))
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var status: Int
        var body: String
        var outcome: AttemptOutcome
        var testDescription: String { "\(status) \(body)" }
    }

    @Test(arguments: [
        Case(
            status: 200,
            body: #"{"id":7,"productId":1,"buyerId":"u-001","quantity":3,"status":"CONFIRMED","failReason":null,"createdAt":"x"}"#,
            outcome: .confirmed(orderID: 7)
        ),
        Case(
            status: 200,
            body: #" { "status" : "CONFIRMED" , "nested":{"id":1,"a":[1,{"id":2}]}, "id" : 9223372036854775807 } "#,
            outcome: .confirmed(orderID: .max)
        ),
        Case(status: 200, body: #"{"buyerId":"\"id\":5,","status":"CONFIRMED","id":8}"#, outcome: .confirmed(orderID: 8)),
        Case(
            status: 200,
            body: #"{"id":7,"status":"FAILED","failReason":"INSUFFICIENT_STOCK"}"#,
            outcome: .failed("INSUFFICIENT_STOCK")
        ),
        Case(status: 200, body: #"{"id":7,"status":"FAILED","failReason":"PRODUCT_NOT_FOUND"}"#, outcome: .failed("PRODUCT_NOT_FOUND")),
        Case(status: 200, body: #"{"id":7,"status":"PENDING"}"#, outcome: .unknown("PENDING")),
        Case(status: 202, body: #"{"id":7,"status":"PENDING"}"#, outcome: .unknown("PENDING")),
        Case(status: 200, body: #"{"status":"CONFIRMED"}"#, outcome: .unknown("MALFORMED_ANSWER")),
        Case(status: 200, body: #"{"id":1.5,"status":"CONFIRMED"}"#, outcome: .unknown("MALFORMED_ANSWER")),
        Case(status: 200, body: #"{"id":"7","status":"CONFIRMED"}"#, outcome: .unknown("MALFORMED_ANSWER")),
        Case(status: 200, body: #"{"id":7,"status":"CONFIRMED""#, outcome: .unknown("MALFORMED_ANSWER")),
        Case(status: 200, body: "", outcome: .unknown("MALFORMED_ANSWER")),
        Case(status: 200, body: "[1]", outcome: .unknown("MALFORMED_ANSWER")),
        Case(status: 200, body: "{\"a\":" + String(repeating: "[", count: 5000), outcome: .unknown("MALFORMED_ANSWER")),
        Case(status: 400, body: #"{"error":"INSUFFICIENT_STOCK","message":"sold out","details":null}"#, outcome: .soldOut),
        Case(status: 400, body: #"{"error":"INSUFFICIENT_STOCK","details":{"productId":1}}"#, outcome: .soldOut),
        Case(
            status: 400,
            body: #"{"error":"INSUFFICIENT_STOCK","message":"m","details":{"productId":1,"more":{"orderId":5},"orderId":7}}"#,
            outcome: .soldOutOrder(orderID: 7)
        ),
        Case(status: 400, body: #"{"details": { "orderId" : 8 } , "error":"INSUFFICIENT_STOCK"}"#, outcome: .soldOutOrder(orderID: 8)),
        Case(status: 400, body: #"{"error":"INSUFFICIENT_STOCK","details":[7]}"#, outcome: .soldOut),
        Case(status: 400, body: #"{"error":"INSUFFICIENT_STOCK","details":{"orderId":"7"}}"#, outcome: .soldOut),
        Case(status: 400, body: #"{"error":"INSUFFICIENT_STOCK","details":{"orderId":7"#, outcome: .failed("HTTP_400")),
        Case(status: 400, body: #"{"error":"VALIDATION_ERROR"}"#, outcome: .failed("VALIDATION_ERROR")),
        Case(status: 404, body: "<html>", outcome: .failed("HTTP_404")),
        Case(status: 409, body: #"{"error":"REQUEST_IN_PROGRESS"}"#, outcome: .unknown("REQUEST_IN_PROGRESS")),
        Case(status: 409, body: #"{"error":"KEY_CLOSED"}"#, outcome: .failed("KEY_CLOSED")),
        Case(status: 422, body: #"{"error":"KEY_REUSED"}"#, outcome: .failed("KEY_REUSED")),
        Case(status: 424, body: #"{"error":"DEPENDENCY_FAILED"}"#, outcome: .unknown("DEPENDENCY_FAILED")),
        Case(status: 502, body: "<html>Bad Gateway</html>", outcome: .unknown("HTTP_502")),
        Case(status: 503, body: #"{"error":"OVERLOADED"}"#, outcome: .unknown("OVERLOADED")),
    ])
    func isJudged(_ example: Case) {
        #expect(AttemptOutcome(status: example.status, body: Array(example.body.utf8)) == example.outcome)
    }

    @Test func everyTruncationIsHarmless() {
        let whole = Array(#"{"a":{"b":["x\"",1,true]},"id":7,"status":"CONFIRMED"}"#.utf8)
        for length in 0..<whole.count {
            #expect(AttemptOutcome(status: 200, body: Array(whole[..<length])) == .unknown("MALFORMED_ANSWER"))
        }
        #expect(AttemptOutcome(status: 200, body: whole) == .confirmed(orderID: 7))
    }
}
