// Invariant: a server of a cell decides about its own cell's products alone, and answers `MISDIRECTED` for the id of any other. Only the cell that has a product
// knows its keys, so a refusal from elsewhere could fail an order whose units are taken.

import APIErrors
import StockContract

/// The products of this server's cell.
struct OwnProducts: Sendable {
    /// Nil: all products.
    let ids: ProductIDs?

    func has(_ id: Int64) -> Bool { ids?.contains(id) ?? true }

    /// - Throws: `MISDIRECTED` if another cell has the product
    func check(_ id: Int64) throws(APIError) {
        guard has(id) else { throw APIError(.misdirected, retryAfter: .seconds(1)) }
    }
}
