// Input from the broker: frames that the library has decoded become events, and the frames of one message become a delivery.
//
// Invariant: no pointer into the library's memory leaves this file; everything that is kept is copied.

import CRabbitMQ

extension AMQPConnection {
    func received(_ frame: amqp_frame_t, _ handleEvent: (Event) throws(BrokerError) -> Void) throws(BrokerError) {
        // Everything that is kept is copied below. The library refuses to release the buffers while it still holds frames in them.
        defer { amqp_maybe_release_buffers_on_channel(handle, frame.channel) }
        switch Int32(frame.frame_type) {
        case AMQP_FRAME_METHOD: try received(frame.payload.method, handleEvent)
        case AMQP_FRAME_HEADER:
            guard let decoded = frame.payload.properties.decoded else { throw outOfTurn() }
            let properties = Self.properties(decoded.assumingMemoryBound(to: amqp_basic_properties_t.self).pointee)
            try step(assembler.received(properties: properties, bodySize: frame.payload.properties.body_size), handleEvent)
        case AMQP_FRAME_BODY:
            try step(assembler.received(fragment: UnsafeRawBufferPointer(frame.payload.body_fragment)), handleEvent)
        default: return
        }
    }

    private func received(_ method: amqp_method_t, _ handleEvent: (Event) throws(BrokerError) -> Void) throws(BrokerError) {
        func decoded<T>(_ type: T.Type) throws(BrokerError) -> T {
            guard let pointer = method.decoded else { throw outOfTurn() }
            return pointer.assumingMemoryBound(to: type).pointee
        }
        switch method.id {
        case AMQP_BASIC_ACK_METHOD:
            let ack = try decoded(amqp_basic_ack_t.self)
            try handleEvent(.acknowledged(ack.delivery_tag, multiple: ack.multiple != 0))
        case AMQP_BASIC_NACK_METHOD:
            let nack = try decoded(amqp_basic_nack_t.self)
            try handleEvent(.refused(nack.delivery_tag, multiple: nack.multiple != 0))
        case AMQP_BASIC_DELIVER_METHOD:
            let deliver = try decoded(amqp_basic_deliver_t.self)
            let content = ContentMethod.deliver(
                number: deliver.delivery_tag,
                isRedelivered: deliver.redelivered != 0,
                exchange: String(deliver.exchange),
                routingKey: String(deliver.routing_key)
            )
            try step(assembler.received(method: content), handleEvent)
        case AMQP_BASIC_RETURN_METHOD:
            let returned = try decoded(amqp_basic_return_t.self)
            let content = ContentMethod.return(code: Int(returned.reply_code), text: String(returned.reply_text))
            try step(assembler.received(method: content), handleEvent)
        case AMQP_BASIC_CANCEL_METHOD: try handleEvent(.consumerCancelled)
        case AMQP_CONNECTION_BLOCKED_METHOD:
            try handleEvent(.blocked(reason: String(try decoded(amqp_connection_blocked_t.self).reason)))
        case AMQP_CONNECTION_UNBLOCKED_METHOD: try handleEvent(.unblocked)
        case AMQP_CHANNEL_CLOSE_METHOD, AMQP_CONNECTION_CLOSE_METHOD: throw Self.refusal(method) ?? outOfTurn()
        default: return
        }
    }

    private func step(
        _ step: ContentAssembler<ContentMethod, Properties>.Step,
        _ handleEvent: (Event) throws(BrokerError) -> Void
    ) throws(BrokerError) {
        switch step {
        case .needsMore: return
        case .outOfTurn: throw outOfTurn()
        case .complete(let content):
            let properties = content.properties
            switch content.method {
            case .return(let code, let text): try handleEvent(.returned(sequence: properties.sequence, code: code, text: text))
            case .deliver(let number, let isRedelivered, let exchange, let routingKey):
                guard let body = content.body else { return try handleEvent(.oversized(number: number)) }
                let delivery = Delivery(
                    body: body,
                    messageID: properties.messageID,
                    correlationID: properties.correlationID,
                    type: properties.type,
                    contentType: properties.contentType,
                    timestamp: properties.timestamp,
                    headers: properties.headers,
                    exchange: exchange,
                    routingKey: routingKey,
                    isRedelivered: isRedelivered,
                    tag: DeliveryTag(generation: generation, number: number)
                )
                try handleEvent(.delivered(number: number, delivery))
            }
        }
    }

    private func outOfTurn() -> BrokerError { BrokerError(code: .connectionLost, message: "the broker sent a frame out of turn") }

    private static func properties(_ source: amqp_basic_properties_t) -> Properties {
        let flags = Int32(bitPattern: source._flags)
        func text(_ flag: Int32, _ bytes: amqp_bytes_t) -> String? { flags & flag == 0 ? nil : String(bytes) }
        var properties = Properties(
            messageID: text(AMQP_BASIC_MESSAGE_ID_FLAG, source.message_id),
            correlationID: text(AMQP_BASIC_CORRELATION_ID_FLAG, source.correlation_id),
            type: text(AMQP_BASIC_TYPE_FLAG, source.type),
            contentType: text(AMQP_BASIC_CONTENT_TYPE_FLAG, source.content_type),
            timestamp: flags & AMQP_BASIC_TIMESTAMP_FLAG == 0 ? nil : source.timestamp
        )
        if flags & AMQP_BASIC_HEADERS_FLAG != 0 {
            properties.headers = [String: HeaderValue](source.headers)
            if case .integer(let sequence)? = properties.headers.removeValue(forKey: sequenceHeader) {
                properties.sequence = UInt64(bitPattern: sequence)
            }
        }
        return properties
    }
}
