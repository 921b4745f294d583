import Foundation
import SeededRandom

/// How orders are spread over the products of a sale.
public enum ProductSpread: Equatable, Sendable {
    /// All alike.
    case even
    /// The first gets this part of the orders, the others share the rest.
    case hot(Double)
    /// The n-th gets 1/n^s of what the first gets.
    case zipf(Double)

    /// Reads `even`, `hot:90%` or `zipf:1.1`.
    /// - Throws: `PlanError` that names the text.
    public init(_ text: String) throws(PlanError) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let value = parts.count == 2 ? String(parts[1]) : nil
        let part = value.flatMap { $0.hasSuffix("%") ? Double($0.dropLast()) : nil }.flatMap { (0...100).contains($0) ? $0 / 100 : nil }
        let exponent = value.flatMap { Double($0) }.flatMap { (0...10).contains($0) ? $0 : nil }
        switch (parts.first, value, part, exponent) {
        case ("even", nil, _, _): self = .even
        case ("hot", nil, _, _): self = .hot(0.9)
        case ("hot", _, let part?, _): self = .hot(part)
        case ("zipf", nil, _, _): self = .zipf(1)
        case ("zipf", _, _, let exponent?): self = .zipf(exponent)
        default: throw PlanError("'\(text)' is no spread over products: write even, hot:90% or zipf:1.1")
        }
    }
}

/// Chooses a product for each order. The choice costs one search among the products.
struct ProductChoice {
    /// The part of the orders up to and with each product.
    private let bounds: [Double]

    init(_ spread: ProductSpread, count: Int) {
        var weights: [Double] =
            switch spread {
            case .even: Array(repeating: 1, count: count)
            case .hot(let part): (0..<count).map { $0 == 0 ? part : (1 - part) / Double(max(1, count - 1)) }
            case .zipf(let exponent): (1...max(count, 1)).map { pow(Double($0), -exponent) }
            }
        let sum = weights.reduce(0, +)
        var reached = 0.0
        for index in weights.indices {
            reached += weights[index] / max(sum, .leastNonzeroMagnitude)
            weights[index] = reached
        }
        bounds = weights
    }

    /// The product's place, from 0.
    func next(using generator: inout SplitMix64) -> Int {
        guard bounds.count > 1 else { return 0 }
        let chance = Double.random(in: 0..<1, using: &generator)
        var (low, high) = (0, bounds.count - 1)
        while low < high {
            let middle = (low + high) / 2
            if bounds[middle] > chance { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

/// What buyers do beside ordering once.
public struct BuyerHabits: Equatable, Sendable {
    /// The part of the orders that are sent twice under one key, at the same time where a connection is free for it.
    public var duplicates = 0.0
    /// The part of the confirmed orders that are cancelled at once.
    public var cancellations = 0.0
    /// How often a buyer looks at the product before ordering.
    public var views = 0

    /// One order, once.
    public init() {}
}
