import NIOCore

/// One command on its way: the shell around `ClusterCall`. Loop-bound.
// Sendable, although its state is not locked: all of it is used on `eventLoop` alone.
final class ClusterSending: @unchecked Sendable {
    private let cluster: RedisCluster
    private let slot: HashSlot
    private let eventLoop: any EventLoop
    private var call: ClusterCall
    private let deadline: NIODeadline
    private let attempt: (RedisConnection, NIODeadline, @escaping (Result<RedisValue, RedisError>) -> Void) -> Void
    private let completion: (Result<RedisValue, RedisError>) -> Void

    init(
        cluster: RedisCluster,
        slot: HashSlot,
        eventLoop: any EventLoop,
        call: ClusterCall,
        deadline: NIODeadline,
        attempt: @escaping (RedisConnection, NIODeadline, @escaping (Result<RedisValue, RedisError>) -> Void) -> Void,
        completion: @escaping (Result<RedisValue, RedisError>) -> Void
    ) {
        self.cluster = cluster
        self.slot = slot
        self.eventLoop = eventLoop
        self.call = call
        self.deadline = deadline
        self.attempt = attempt
        self.completion = completion
    }

    func go() {
        switch call.target {
        case .owner:
            guard let map = cluster.map else { return waitForMap() }
            guard let master = map[slot] else {
                cluster.doubt(.unknown)
                return completion(.failure(RedisError(.notConnected, detail: "no node of the cluster serves slot \(slot)")))
            }
            send(to: master, isNamed: false, isAsking: false)
        case .node(let endpoint): send(to: endpoint, isNamed: true, isAsking: false)
        case .asking(let endpoint): send(to: endpoint, isNamed: true, isAsking: true)
        }
    }

    private func waitForMap() {
        let found = eventLoop.makePromise(of: Void.self)
        let timer = eventLoop.scheduleTask(deadline: deadline) {
            found.fail(RedisError(.notConnected, detail: "the map of the cluster's slots was not found in time"))
        }
        cluster.find().hop(to: eventLoop).cascade(to: found)
        found.futureResult.whenComplete { result in
            timer.cancel()
            switch result {
            case .success: self.go()
            case .failure(let error): self.completion(.failure(error as? RedisError ?? RedisError(.closed)))
            }
        }
    }

    private func send(to endpoint: RedisEndpoint, isNamed: Bool, isAsking: Bool) {
        guard let client = cluster.client(of: endpoint, isNamed: isNamed) else {
            let why = "\(endpoint) is no node of the map, or there are too many nodes"
            return completion(.failure(RedisError(.notConnected, detail: why)))
        }
        if let connection = client.connection(on: eventLoop) { return send(over: connection, endpoint, isAsking) }
        client.whenReady(on: eventLoop, deadline: deadline).whenComplete { result in
            switch result {
            case .success(let connection): self.send(over: connection, endpoint, isAsking)
            case .failure(let error): self.completion(.failure(error as? RedisError ?? RedisError(.closed)))
            }
        }
    }

    private func send(over connection: RedisConnection, _ endpoint: RedisEndpoint, _ isAsking: Bool) {
        // Both leave in one write, one right after the other. If ASKING is refused, the node redirects the command once more, and the call ends.
        if isAsking { connection.send(RedisCommand("ASKING"), deadline: deadline) { _ in } }
        attempt(connection, deadline) { result in
            switch result {
            case .success: self.completion(result)
            case .failure(let error):
                let step = self.call.failed(error, replied: endpoint, now: self.eventLoop.now)
                if let doubt = step.doubt { self.cluster.doubt(doubt) }
                switch step.next {
                case .end: self.completion(result)
                case .send(_, let pause):
                    self.cluster.redirected()
                    if pause > .zero {
                        self.eventLoop.assumeIsolated().scheduleTask(in: pause) { self.go() }
                    } else {
                        self.go()
                    }
                }
            }
        }
    }
}
