package import MessageBroker

extension OutgoingMessage {
    /// A copy of a delivery for the dead letters, with the reason in headers: publish it, and acknowledge the delivery once it is confirmed.
    /// - Parameters:
    ///   - reason: an error code, or another word for what is wrong
    ///   - detail: what is wrong, for whoever reads the dead letter; cut to `maximumDetail` characters
    package static func deadLetter(_ delivery: Delivery, reason: String, detail: String, maximumDetail: Int) -> OutgoingMessage {
        var letter = OutgoingMessage.deadLetter(
            delivery,
            to: StockGateTopology.deadExchange,
            reason: reason,
            header: StockGateTopology.deadReasonHeader
        )
        letter.headers["reason"] = .string(reason)
        letter.headers["detail"] = .string(String(detail.prefix(maximumDetail)))
        return letter
    }
}
