// Every product belongs to one cell, or to none. One of no cell is answered as an unknown product is, if nothing can have been sent for it before; else it is
// unknown what became of its stock, and the order waits until the setting names a cell that knows.

import APIErrors
import StockContract
import Synchronization

/// The cells of product servers, and which product each of them has.
struct ProductCells: Sendable {
    /// At least one.
    let all: [ProductCell]
    /// Nil where the one cell has all products.
    let map: CellMap?

    /// The cell that has a product; nil: none has.
    func cell(of product: Int64) -> ProductCell? { index(of: product).map { all[$0] } }

    func index(of product: Int64) -> Int? {
        guard let map else { return 0 }
        return map.cell(of: product)
    }

    /// Changes of stock that wait.
    var queued: Int { all.reduce(0) { $0 + $1.calls.queued } }

    /// Whether no cell's breaker lets calls through for some time yet.
    var areAllWaiting: Bool { all.allSatisfy { $0.breaker.isWaiting } }

    /// The products that recovery works on apart from all others: those of each cell, and those of none. One element where the one cell has all products.
    var recoveries: [[ClosedRange<Int64>]?] {
        guard let map else { return [nil] }
        return (all.indices.map { map.ids(of: $0) } + [map.ids(of: nil)]).filter { !$0.isEmpty }
    }

    // MARK: The catalogues

    /// The id of a product.
    /// - Throws: `PRODUCT_NOT_FOUND`, `DEPENDENCY_FAILED`, `OVERLOADED`
    func id(of product: IDOrCode, requestID: String? = nil) async throws(APIError) -> Int64 {
        if case .id(let id) = product { return id }
        if all.count == 1 { return try await all[0].catalogue.id(of: product, requestID: requestID) }
        for cell in all { if let id = cell.catalogue.remembered(product) { return id } }
        return try await facts(of: product, requestID: requestID).id
    }

    /// A product's id and price as they are now. Of a code all cells are asked, and the first that has it answers, whether or not the others do.
    /// - Throws: `PRODUCT_NOT_FOUND`, `DEPENDENCY_FAILED`, `OVERLOADED`
    func facts(of product: IDOrCode, requestID: String? = nil) async throws(APIError) -> ProductFacts {
        switch product {
        case .id(let id):
            guard let cell = cell(of: id) else { throw APIError(.productNotFound) }
            return try await cell.catalogue.facts(of: product, requestID: requestID)
        case .code where all.count == 1: return try await all[0].catalogue.facts(of: product, requestID: requestID)
        case .code:
            let result: Result<ProductFacts, APIError> = await withCheckedContinuation { continuation in
                let answers = CellAnswers(count: all.count) { continuation.resume(returning: $0) }
                for (index, cell) in all.enumerated() {
                    Task {
                        do throws(APIError) {
                            let facts = try await cell.catalogue.facts(of: product, requestID: requestID)
                            // A product that has moved to another cell may have left a row.
                            answers.take(self.index(of: facts.id) == index ? .success(facts) : .failure(APIError(.productNotFound)))
                        } catch {
                            answers.take(.failure(error))
                        }
                    }
                }
            }
            return try result.get()
        }
    }

    func shutdown() {
        for cell in all { cell.shutdown() }
    }
}

/// Waits for the first cell that has a product. It is not found only if every cell says so.
private final class CellAnswers: Sendable {
    typealias Answer = Result<ProductFacts, APIError>
    typealias Done = @Sendable (Answer) -> Void

    private struct State {
        var missing: Int
        var trouble: APIError?
        var done: Done?
    }

    private let state: Mutex<State>

    init(count: Int, done: @escaping Done) {
        state = Mutex(State(missing: count, done: done))
    }

    func take(_ answer: Answer) {
        let end = state.withLock { state -> (done: Done, answer: Answer)? in
            state.missing -= 1
            var last = answer
            if case .failure(let error) = answer {
                if error.code != .productNotFound { state.trouble = error }
                guard state.missing == 0 else { return nil }
                last = .failure(state.trouble ?? error)
            }
            guard let done = state.done else { return nil }
            state.done = nil
            return (done, last)
        }
        if let end { end.done(end.answer) }
    }
}

extension SagaStep {
    /// The step that takes the order's stock from its product's cell.
    static func stock(_ cells: ProductCells) -> SagaStep {
        let steps = cells.all.map { stock($0.calls, soldOut: $0.soldOut) }
        guard cells.map != nil else { return steps[0] }
        return SagaStep(name: steps[0].name) { order, attempt, done in
            if let index = cells.index(of: order.productID) { return steps[index].startExecuting(order, attempt, done) }
            // The key of a first attempt was never sent.
            done(attempt == 1 ? .refused(reason: APIErrorCode.productNotFound.rawValue) : .noAnswer(cause: noCell, retryAfter: nil))
        } startCompensating: { order, attempt, done in
            if let index = cells.index(of: order.productID) { return steps[index].startCompensating(order, attempt, done) }
            done(.noAnswer(cause: noCell, retryAfter: nil))
        }
    }

    /// The cause of an undecided call for a product of no cell.
    static let noCell = "NO_CELL"
}
