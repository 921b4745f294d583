import HotPath
import HTTPTypes
import Hummingbird
import Logging

/// Stands before everything else: gives the request its ids, counts and times it, and returns its id.
struct RequestObservation: RouterMiddleware {
    let table: RouteTable

    func handle(
        _ request: Request,
        context: ServerRequestContext,
        next: (Request, ServerRequestContext) async throws -> Response
    ) async throws -> Response {
        let start = ContinuousClock.now
        var context = context
        context.identify(request)
        let metrics = table.metrics(template: context.endpointPath, method: request.method)
        metrics.started()
        do {
            var response = try await next(request, context)
            metrics.finished(status: Int(response.status.code), after: ContinuousClock.now - start)
            response.headers[.requestID] = context.requestID
            context.logger.debug(
                "request",
                metadata: ["method": "\(request.method)", "path": "\(request.uri.path)", "status": "\(response.status.code)"]
            )
            return response
        } catch {
            // `ErrorShaping` answers whatever a route throws. What is thrown all the same is answered by Hummingbird.
            metrics.finished(status: 500, after: ContinuousClock.now - start)
            throw error
        }
    }
}
