import APIErrors
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import StrictJSON

/// Turns everything that is thrown, and every request that no route takes, into the one shape of errors.
struct ErrorShaping: RouterMiddleware {
    let table: RouteTable

    func handle(
        _ request: Request,
        context: ServerRequestContext,
        next: (Request, ServerRequestContext) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch {
            let response = shape(error, request: request, context: context).response(to: request)
            // The answer to a HEAD has no body: the client would take one for the next answer.
            return request.method == .head ? response.createHeadResponse() : response
        }
    }

    private func shape(_ error: any Error, request: Request, context: ServerRequestContext) -> APIError {
        switch error {
        case let error as APIError:
            if error.code.status >= 500 {
                context.logger.debug("request refused", metadata: ["error": "\(error.code.rawValue)"])
            }
            return error
        case let error as JSONSyntaxError:
            return .malformed(error)
        case is NIOTooManyBytesError:
            return .payloadTooLarge(Values.maximumBodyBytes)
        case let error as HTTPError where error.status == .notFound:
            let allowed = table.allowedMethods(path: request.uri.path)
            if allowed.isEmpty || allowed.contains(request.method.rawValue) { return APIError(.notFound) }
            return APIError(.methodNotAllowed, details: ["allowed": .array(allowed.map { .string($0) })], allow: allowed)
        case let error as any HTTPResponseError:
            // Hummingbird's own error, thrown by a helper that a route has used.
            switch error.status.code {
            case 401: return APIError(.unauthorized)
            case 403: return APIError(.forbidden)
            case 413: return .payloadTooLarge(Values.maximumBodyBytes)
            case 415: return APIError(.unsupportedMediaType)
            case 400..<500: return APIError(.validationError, message: .malformedRequest)
            default: return unexpected(error, request: request, context: context)
            }
        default:
            return unexpected(error, request: request, context: context)
        }
    }

    private func unexpected(_ error: any Error, request: Request, context: ServerRequestContext) -> APIError {
        if error is CancellationError {
            // The server stops while the request is in work.
            return APIError(.unavailable)
        }
        context.logger.error(
            "unexpected error",
            metadata: ["method": "\(request.method)", "path": "\(request.uri.path)", "error": "\(String(reflecting: error))"]
        )
        return APIError(.internalError, details: ["requestId": .string(context.requestID)])
    }
}
