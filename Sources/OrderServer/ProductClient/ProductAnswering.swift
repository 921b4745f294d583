// Invariant: `onChange` hears once that the product servers of a cell do not answer, and once that they do again.
//
// A single failed call says little: a connection may have ended, and the saga repeats the call. Three failures of one kind of call, with no answer between them, are
//   news. A refused token is news at once, because only an operator can help.
//
// Bound: one state for each kind of call. An answer ends the trouble a second after its last failure at the earliest, so that servers of which one does not answer are
//   told of twice a second at most.

import Synchronization

/// Whether the product servers of one cell answer, as the calls to them find.
final class ProductAnswering: Sendable {
    /// The kinds of calls, which may go to different ports.
    enum Asked: Sendable {
        /// Looks at products.
        case products
        /// Changes of stock. Whoever makes them can sell.
        case stock
    }

    private struct Run {
        var failures = 0
        var lastFailure: ContinuousClock.Instant?
        /// Why there is no answer, if that is known.
        var why: String?

        mutating func answered() {
            if why != nil, let lastFailure, ContinuousClock.now - lastFailure < ProductAnswering.rest { return }
            self = Run()
        }
    }

    private struct State {
        var products = Run()
        var stock = Run()
        var why: String? { stock.why ?? products.why }
    }

    /// So many failures with no answer between them are trouble.
    static let enough = 3
    static let rest: Duration = .seconds(1)

    private let state = Mutex(State())
    private let onChange: @Sendable (_ why: String?) -> Void

    /// - Parameter onChange: called with the reason that there is no answer, and with nil when there is one again
    init(onChange: @escaping @Sendable (_ why: String?) -> Void = { _ in }) { self.onChange = onChange }

    /// Why the product servers do not answer; nil: they do, as far as is known.
    var trouble: String? { state.withLock { $0.why } }

    func answered(_ asked: Asked) {
        change { state in
            // Who changes stock answers; the last look at a product may be long ago.
            state.products.answered()
            if asked == .stock { state.stock.answered() }
        }
    }

    /// - Parameters:
    ///   - cause: a text of ``NoAnswerCause``, or what the answer says instead of deciding
    ///   - status: of an answer
    func failed(_ asked: Asked, _ cause: String, status: Int? = nil) {
        let refusesToken = status == 401 || status == 403
        let words = refusesToken ? "HTTP \(status ?? 0): it refuses the token in PRODUCT_SERVICE_TOKEN" : cause
        func note(_ run: inout Run) {
            run.failures = min(run.failures + 1, Self.enough)
            run.lastFailure = .now
            if refusesToken || run.failures == Self.enough { run.why = words }
        }
        change { state in
            if asked == .stock { note(&state.stock) } else { note(&state.products) }
        }
    }

    private func change(_ body: (inout State) -> Void) {
        let (before, after) = state.withLock { state in
            let before = state.why
            body(&state)
            return (before, state.why)
        }
        if (before == nil) != (after == nil) { onChange(after) }
    }
}
