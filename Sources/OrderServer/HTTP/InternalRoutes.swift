import Hummingbird
import ServerKit

/// What the admin port has of its own.
struct InternalRoutes: Sendable {
    let flow: OrderFlow

    func register(on router: ServerRouter) {
        router.on("/internal/orders/{id}/retry", method: .post) { _, context in
            let order = try await self.flow.retry(id: try context.pathID(orThrow: .orderNotFound))
            return Response.json { order.write(to: &$0) }
        }
    }
}
