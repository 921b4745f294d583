import Foundation
import Synchronization

/// Threads for what waits on sockets: Swift's own pool must not be kept waiting.
enum Workers {
    /// Does `work` with each item, so many at the same time, and returns the results in the items' order.
    static func map<Item: Sendable, Value: Sendable>(
        _ items: [Item],
        workers: Int,
        _ work: @escaping @Sendable (Item) -> Value
    ) async -> [Value] {
        if items.isEmpty { return [] }
        let desk = Desk<Value>(count: items.count)
        let threads = max(1, min(workers, items.count))
        return await withCheckedContinuation { continuation in
            for _ in 0..<threads {
                Thread.detachNewThread {
                    while let index = desk.next() {
                        if let values = desk.finish(index, work(items[index])) { continuation.resume(returning: values) }
                    }
                }
            }
        }
    }

    /// Does one thing on a thread of its own.
    static func run<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { continuation.resume(with: Result { try work() }) }
        }
    }

    /// Which item is next, and what came of the others.
    private final class Desk<Value: Sendable>: Sendable {
        private let state: Mutex<State>

        private struct State {
            var next = 0
            var missing: Int
            var values: [Value?]
        }

        init(count: Int) {
            state = Mutex(State(missing: count, values: Array(repeating: nil, count: count)))
        }

        func next() -> Int? {
            state.withLock { state in
                guard state.next < state.values.count else { return nil }
                defer { state.next += 1 }
                return state.next
            }
        }

        /// All values, once the last one is there.
        func finish(_ index: Int, _ value: Value) -> [Value]? {
            state.withLock { state in
                state.values[index] = value
                state.missing -= 1
                return state.missing == 0 ? state.values.compactMap { $0 } : nil
            }
        }
    }
}
