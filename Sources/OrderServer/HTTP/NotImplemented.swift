import APIErrors
import Hummingbird
import ServerKit
import StrictJSON

extension Response {
    /// The answer to a request for a 202 while there is no broker to carry the order: `NOT_IMPLEMENTED` in the one shape of errors.
    static func asynchronousNotImplemented(_ request: Request) -> Response {
        let message =
            switch Language.negotiated(request.headers[.acceptLanguage]) {
            case .english: "Orders over the broker are not available. Send the request without Prefer: respond-async to /orders."
            case .korean: "브로커를 통한 주문은 아직 제공되지 않습니다. Prefer: respond-async 없이 /orders로 요청해 주세요."
            }
        let isProblem = ErrorFormat.negotiated(request.headers[.accept]) == .problem
        var response = Response.json(.notImplemented) { json in
            json.object { json in
                if isProblem {
                    json.member("type", "about:blank")
                    json.member("title", "Not Implemented")
                    json.member("status", 501)
                    json.member("detail", message)
                    json.member("error", "NOT_IMPLEMENTED")
                } else {
                    json.member("error", "NOT_IMPLEMENTED")
                    json.member("message", message)
                }
                json.member("details", JSONValue.null)
            }
        }
        if isProblem { response.headers[.contentType] = "application/problem+json" }
        return response
    }
}
