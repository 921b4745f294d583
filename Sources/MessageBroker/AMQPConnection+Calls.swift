// Calls that block within the call timeout.

import BlockingThreads
import CDispatch
import CRabbitMQ
import Glibc

extension AMQPConnection {
    /// Declares the exchanges, queues and bindings that do not exist yet.
    func declare(_ topology: Topology) throws(BrokerError) {
        for exchange in topology.exchanges {
            pool.recycle()
            _ = amqp_exchange_declare(
                handle,
                Self.channel,
                pool.bytes(exchange.name),
                pool.bytes(exchange.kind.rawValue),
                0,
                exchange.isDurable ? 1 : 0,
                0,
                0,
                amqp_table_t()
            )
            try check("exchange", exchange.name)
        }
        for queue in topology.queues {
            pool.recycle()
            let arguments = pool.table(queue.declaredArguments)
            _ = amqp_queue_declare(handle, Self.channel, pool.bytes(queue.name), 0, 1, 0, 0, arguments)
            try check("queue", queue.name)
        }
        for binding in topology.bindings {
            pool.recycle()
            _ = amqp_queue_bind(
                handle,
                Self.channel,
                pool.bytes(binding.queue),
                pool.bytes(binding.exchange),
                pool.bytes(binding.routingKey),
                amqp_table_t()
            )
            try check("binding of queue", binding.queue)
        }
        amqp_maybe_release_buffers(handle)
    }

    /// Turns on publisher confirms.
    func selectConfirms() throws(BrokerError) {
        _ = amqp_confirm_select(handle, Self.channel)
        try check("channel", "confirms")
    }

    /// Begins to consume with manual acknowledgement.
    func consume(_ queue: String, prefetch: UInt16, arguments: [String: HeaderValue]) throws(BrokerError) {
        _ = amqp_basic_qos(handle, Self.channel, 0, prefetch, 0)
        try check("channel", "prefetch")
        pool.recycle()
        _ = amqp_basic_consume(
            handle,
            Self.channel,
            pool.bytes(queue),
            amqp_bytes_t(),
            0,
            0,
            0,
            pool.table(arguments)
        )
        try check("queue", queue)
    }

    func check(_ kind: String, _ name: String) throws(BrokerError) {
        guard let failure = Self.failure(amqp_get_rpc_reply(handle)) else { return }
        // 406 is also what the broker says where a limit keeps it from declaring another queue: that may change any moment.
        if case .refused(406) = failure.code, failure.message.contains("inequivalent arg") {
            throw BrokerError(
                code: .topologyMismatch(name: name),
                message: "\(kind) '\(name)' exists with other arguments: \(failure.message)"
            )
        }
        throw BrokerError(code: failure.code, message: "\(kind) '\(name)': \(failure.message)")
    }

    /// Closes the connection in the orderly way, within `bound`, so that the broker knows at once. If output is still waiting, only the socket is closed.
    func close(within bound: Duration) {
        guard output.count == 0, bound > .zero else { return }
        var limit = timeval(bound)
        amqp_set_rpc_timeout(handle, &limit)
        _ = amqp_connection_close(handle, AMQP_REPLY_SUCCESS)
    }
}
