import StockContract
import StrictJSON

extension Order {
    /// Writes the order as an object.
    func write(to json: inout JSONWriter) {
        json.object { writeMembers(to: &$0) }
    }

    /// Writes the members that ``write(to:)`` writes, so that the caller can add more.
    func writeMembers(to json: inout JSONWriter) {
        json.member("id", id)
        json.member("productId", productID)
        json.member("buyerId", buyerID)
        json.member("quantity", quantity)
        json.member("status", status.rawValue)
        json.member("failReason", failReason)
        json.member("createdAt", createdAt)
        json.member("updatedAt", updatedAt)
    }

    /// Writes the order in the form of the routes under a user: with the product's code if the buyer named the code, with the total price, and without a
    /// reason.
    func writeForUser(to json: inout JSONWriter) {
        json.object { json in
            json.member("productId", productCode ?? String(productID))
            json.member("qty", quantity)
            json.member("unitPrice", unitPrice)
            json.member("totalPrice", totalPrice)
            json.member("orderId", id)
            json.member("status", status.rawValue)
            json.member("createdAt", createdAt)
        }
    }

    /// The total in the currency's smallest unit; nil without a unit price. An order whose total exceeds 64 bits is refused before it is made.
    var totalPrice: Int64? {
        guard let unitPrice else { return nil }
        let (total, overflow) = unitPrice.multipliedReportingOverflow(by: quantity)
        return overflow ? nil : total
    }
}
