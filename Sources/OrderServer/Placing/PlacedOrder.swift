import APIErrors

/// An order, and whether an earlier request with the same key has made it.
struct PlacedOrder: Sendable {
    var order: Order
    var isReplay: Bool

    /// Called once with the outcome of a request.
    typealias Done = @Sendable (Result<PlacedOrder, APIError>) -> Void

    /// Starts an operation that reports its end by a callback, and waits for that.
    static func awaited(_ start: (_ done: @escaping Done) -> Void) async throws(APIError) -> PlacedOrder {
        let result: Result<PlacedOrder, APIError> = await withCheckedContinuation { continuation in
            start { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// Continues in a task, off the hot path, and reports the end by a callback.
    static func inTask(_ done: @escaping Done, _ body: @escaping @Sendable () async throws(APIError) -> PlacedOrder) {
        Task {
            do throws(APIError) {
                done(.success(try await body()))
            } catch {
                done(.failure(error))
            }
        }
    }
}
