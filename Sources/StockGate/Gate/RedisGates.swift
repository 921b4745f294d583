// The gates of all event loops, for calls that a task makes for many products at a time.

import Algorithms
import NIOCore

final class RedisGates: Sendable {
    private let gates: [RedisGate]

    init(_ gates: [RedisGate]) { self.gates = gates }

    /// Sets the ledger whose data every gate uses, from the next call on.
    func serve(ledger: String) {
        for gate in gates { gate.eventLoop.execute { gate.serve(ledger: ledger) } }
    }

    /// Has every gate send what waits in it, before the connections close.
    func flush() async {
        for gate in gates {
            await withCheckedContinuation { continuation in
                gate.eventLoop.execute {
                    gate.flush()
                    continuation.resume()
                }
            }
        }
    }

    /// What Redis holds for one product; nil if Redis does not answer.
    func look(_ id: ProductID) async -> GateView? {
        let results = await pipelined([id]) { gate, id, answer in gate.look(GateKeys(id), marker: nil, answer: answer) }
        return try? results.first?.get()
    }

    /// Sends one call for each element over one connection and waits for all replies.
    func pipelined<Element: Sendable, Value: Sendable>(
        _ elements: [Element],
        _ call: @escaping @Sendable (RedisGate, Element, @escaping RedisGate.Answer<Value>) -> Void
    ) async -> [Result<Value, GateFailure>] {
        await send(elements, inACall: { _ in 1 }) { gate, part, answer in
            for element in part { call(gate, element) { answer([$0]) } }
        }
    }

    /// Sends a call for as many elements at a time as one call may have, all over one connection, and waits for all replies.
    func together<Element: Sendable, Value: Sendable>(
        _ elements: [Element],
        _ call: @escaping @Sendable (RedisGate, [Element], @escaping RedisGate.Answers<Value>) -> Void
    ) async -> [Result<Value, GateFailure>] {
        await send(elements, inACall: { $0.productsInACall }, call)
    }

    private func send<Element: Sendable, Value: Sendable>(
        _ elements: [Element],
        inACall most: @escaping @Sendable (RedisGate) -> Int,
        _ call: @escaping @Sendable (RedisGate, [Element], @escaping RedisGate.Answers<Value>) -> Void
    ) async -> [Result<Value, GateFailure>] {
        guard !elements.isEmpty else { return [] }
        return await withCheckedContinuation { continuation in
            overReadyGate(gates[...]) { gate in
                guard let gate else { return continuation.resume(returning: elements.map { _ in .failure(.notConnected) }) }
                let gathered = Gathered<Value>(count: elements.count) { continuation.resume(returning: $0) }
                var first = 0
                for part in elements.chunks(ofCount: most(gate)) {
                    let from = first
                    call(gate, Array(part)) { results in
                        for (place, result) in results.enumerated() { gathered.set(from + place, result) }
                    }
                    first += part.count
                }
            }
        }
    }

    /// Runs `body` on the first loop whose connection is ready, so that a connection that is being made anew fails no call that another one can carry.
    private func overReadyGate(_ gates: ArraySlice<RedisGate>, _ body: @escaping @Sendable (RedisGate?) -> Void) {
        guard let gate = gates.first else { return body(nil) }
        gate.eventLoop.execute {
            if gate.isConnected { body(gate) } else { self.overReadyGate(gates.dropFirst(), body) }
        }
    }
}

/// Collects replies that arrive one by one, on one event loop.
private final class Gathered<Value: Sendable> {
    private var results: [Result<Value, GateFailure>?]
    private var missing: Int
    private let done: ([Result<Value, GateFailure>]) -> Void

    init(count: Int, done: @escaping ([Result<Value, GateFailure>]) -> Void) {
        results = Array(repeating: nil, count: count)
        missing = count
        self.done = done
    }

    func set(_ index: Int, _ result: Result<Value, GateFailure>) {
        guard results[index] == nil else { return }
        results[index] = result
        missing -= 1
        if missing == 0 { done(results.map { $0 ?? .failure(.notConnected) }) }
    }
}
