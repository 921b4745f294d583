import BlockingThreads
import CDispatch
import CRabbitMQ
import Glibc

extension AMQPConnection {
    static func text(of status: Int32) -> String { amqp_error_string2(status).map { String(cString: $0) } ?? "error \(status)" }

    static func failure(_ reply: amqp_rpc_reply_t) -> BrokerError? {
        switch reply.reply_type {
        case AMQP_RESPONSE_NORMAL: return nil
        case AMQP_RESPONSE_LIBRARY_EXCEPTION:
            let code: BrokerError.Code = reply.library_error == AMQP_STATUS_TIMEOUT.rawValue ? .timedOut : .connectionLost
            return BrokerError(code: code, message: text(of: reply.library_error))
        case AMQP_RESPONSE_SERVER_EXCEPTION:
            return refusal(reply.reply) ?? BrokerError(code: .connectionLost, message: "the broker refused a call")
        default: return BrokerError(code: .connectionLost, message: "the broker did not answer")
        }
    }

    /// The reason that the broker gives when it closes the channel or the connection; nil for every other method.
    static func refusal(_ method: amqp_method_t) -> BrokerError? {
        guard let decoded = method.decoded else { return nil }
        let (code, text): (UInt16, amqp_bytes_t)
        switch method.id {
        case AMQP_CHANNEL_CLOSE_METHOD:
            let close = decoded.assumingMemoryBound(to: amqp_channel_close_t.self).pointee
            (code, text) = (close.reply_code, close.reply_text)
        case AMQP_CONNECTION_CLOSE_METHOD:
            let close = decoded.assumingMemoryBound(to: amqp_connection_close_t.self).pointee
            (code, text) = (close.reply_code, close.reply_text)
        default: return nil
        }
        return BrokerError(code: .refused(replyCode: Int(code)), message: String(text))
    }
}
