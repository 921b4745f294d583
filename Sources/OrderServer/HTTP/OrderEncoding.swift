import StockContract
import StrictJSON

extension Order {
    /// Writes the order as an object.
    func write(to json: inout JSONWriter) {
        json.object { self.writeMembers(to: &$0) }
    }

    /// Writes the members that ``write(to:)`` writes, so that the caller can add more.
    func writeMembers(to json: inout JSONWriter) {
        json.member("id", self.id)
        json.member("productId", self.productID)
        json.member("buyerId", self.buyerID)
        json.member("quantity", self.quantity)
        json.member("status", self.status.rawValue)
        json.member("failReason", self.failReason)
        json.member("createdAt", self.createdAt)
        json.member("updatedAt", self.updatedAt)
    }

    /// Writes the order in the form of the routes under a user: with the product's code if the buyer named the code, with the total price, and without a
    /// reason.
    func writeForUser(to json: inout JSONWriter) {
        json.object { json in
            json.member("productId", self.productCode ?? String(self.productID))
            json.member("qty", self.quantity)
            json.member("unitPrice", self.unitPrice)
            json.member("totalPrice", self.totalPrice)
            json.member("orderId", self.id)
            json.member("status", self.status.rawValue)
            json.member("createdAt", self.createdAt)
        }
    }

    /// The total in the currency's smallest unit; nil without a unit price. An order whose total exceeds 64 bits is refused before it is made.
    var totalPrice: Int64? {
        guard let unitPrice else { return nil }
        let (total, overflow) = unitPrice.multipliedReportingOverflow(by: self.quantity)
        return overflow ? nil : total
    }
}
