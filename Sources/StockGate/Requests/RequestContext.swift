// What the requests of one event loop share, and their one way to the rest of the engine.
//
// A run talks to the gate and to the ledger itself, because their replies are the events of its machine. Whatever else follows from a reply is an effect, a
// value that it passes to `carryOut`. Therefore a run knows nothing of the gated products, of resyncs, or of how a fence is raised.

import BlockingThreads
import NIOCore
import Synchronization

/// What a step of a request asks of the rest of the engine.
enum RequestEffect {
    /// Resync the product soon. Nobody waits for it.
    case resync(ProductID)
    /// Resync the product, and call `ended` once, on the loop and later, with whether Redis serves the product now.
    case resyncWaitedFor(GatedProduct, ended: @Sendable (Bool) -> Void)
    /// Raise the product's fence, and call `done` once, on the loop and later.
    case raiseFence(ProductID, done: @Sendable () -> Void)
    /// The ledger replied under this fence, and said whether the product is gated. The server learns of changes that another server made from such a reply
    /// first.
    case learnt(ProductID, isGated: Bool, lockedFence: Fence)
    /// Redis called the product sold out. `generation` is the memory's generation when the reserve was sent.
    case soldOut(GatedProduct, counter: Int64, generation: UInt64)
    /// Units came back, so the memory of *sold out* is void.
    case unitsReturned(ProductID)
    /// The request has sent its last message.
    case finished
}

/// What all requests of one event loop share.
final class RequestContext: Sendable {
    /// Pauses between sendings of a change whose outcome is unknown.
    private static let resendBackoff = Backoff(minimum: .milliseconds(20), maximum: .seconds(1))

    let eventLoop: any EventLoop
    let ledger: PostgresLedger
    let metrics: EngineMetrics
    let times: EngineTimes
    /// Admits requests up to the bound.
    let inFlight: InFlight
    private let deadlines: DeadlineQueue
    private let products: GatedProducts
    /// The event loop's place among those of its group, and its gate's among those of a shard.
    private let place: Int
    private let bumps: FenceBumps
    /// The next mark. The count begins at a random number. Two attempts with the same mark could be confused only if they also had the same key.
    private let marks = Atomic<Int64>(Int64.random(in: 1...(1 << 62)))

    /// How long to wait before a change whose outcome is unknown is sent again, after it was sent again `resends` times.
    static func resendWait(after resends: Int) -> TimeAmount { TimeAmount(resendBackoff.wholeWait(after: resends)) }

    init(
        eventLoop: any EventLoop,
        place: Int,
        ledger: PostgresLedger,
        metrics: EngineMetrics,
        times: EngineTimes,
        inFlight: InFlight,
        products: GatedProducts,
        bumps: FenceBumps
    ) {
        self.eventLoop = eventLoop
        self.place = place
        self.ledger = ledger
        self.metrics = metrics
        self.times = times
        self.inFlight = inFlight
        deadlines = DeadlineQueue(eventLoop: eventLoop)
        self.products = products
        self.bumps = bumps
    }

    /// A mark by which the ledger knows one attempt that is committed without a reservation. Never 0.
    func nextMark() -> Token {
        // The sum stays positive for the next 2^62 attempts.
        Token(marks.wrappingAdd(1, ordering: .relaxed).newValue)
    }

    /// A shard's gate on this loop.
    func gate(of shard: Shard) -> RedisGate { shard.loops[place] }

    /// Begins a decrease, on the loop. `completion` is called once, on the loop.
    func decrease(_ request: DecreaseRequest, isPatient: Bool, completion: @escaping (DecreaseAnswer) -> Void) {
        var product = products[request.product]
        if let known = product {
            let (isDirect, counter) = known.entered(request)
            if isDirect { product = nil }
            if let counter {
                metrics.soldOutFromMemory.add(1)
                // Redis itself may report a counter below zero. The buyer is told 0, from the memory as from Redis.
                return completion(.insufficient(remaining: max(counter, 0)))
            }
        }
        guard inFlight.enter() else { return completion(.unavailable(.overloaded)) }
        let run = DecreaseRun(context: self, product: product, request: request, isPatient: isPatient, completion: completion)
        deadlines.append(run)
        run.begin()
    }

    /// Begins an increase, on the loop. `completion` is called once, on the loop.
    func increase(_ request: IncreaseRequest, isPatient: Bool, completion: @escaping (IncreaseAnswer) -> Void) {
        guard inFlight.enter() else { return completion(.unavailable(.overloaded)) }
        IncreaseRun(context: self, request: request, isPatient: isPatient, completion: completion).begin()
    }

    /// Tells the product's shard of a change that was committed under a fence. `completion` is called on the loop; with nil it is unknown whether Redis has heard it.
    /// - Parameter key: the decrement's key, which gets a mark; empty for an increase
    func apply(
        _ product: ProductID,
        _ keys: GateKeys,
        _ fence: Fence,
        delta: Int64,
        key: String,
        completion: @escaping (ApplyReply?) -> Void
    ) {
        metrics.applies.add(1)
        guard let shard = products.shard(of: product) else {
            metrics.lostApplies.add(1)
            return completion(nil)
        }
        // The change goes to the shard that has the product now, wherever its reservation was made. When the product came there, its fence was raised and it was
        // installed. Either that install counts this commit, or the commit is newer and is added here; so the sum is exact. Nobody reads the old master's counter.
        gate(of: shard).apply(product, keys, fence, delta: delta, key: key) { result in
            let reply = try? result.get()
            if reply == nil { self.metrics.lostApplies.add(1) }
            completion(reply)
        }
    }

    /// Carries out what a step of a request asks for.
    func carryOut(_ effect: RequestEffect) {
        switch effect {
        case .resync(let id): products.ask(id, forced: false)
        case .resyncWaitedFor(let product, let ended):
            guard let shard = product.shard else { return eventLoop.execute { ended(false) } }
            shard.resyncs.awaitResync(of: product) { loaded in self.eventLoop.execute { ended(loaded) } }
        case .raiseFence(let id, let done): bumps.raise(id) { self.eventLoop.execute(done) }
        case .learnt(let id, let isGated, let lockedFence):
            guard lockedFence > 0, isGated != (products[id] != nil) else { return }
            products.set(id, isGated: isGated)
            if isGated { products.ask(id, forced: false) }
        case .soldOut(let product, let counter, let generation):
            metrics.soldOutAtGate.add(1)
            let until = NIODeadline.now().uptimeNanoseconds + times.soldOutMemory
            product.state.withLock { $0.soldOut.saw(counter: counter, generation: generation, until: until) }
        case .unitsReturned(let id): products[id]?.forgetSoldOut()
        case .finished: inFlight.leave()
        }
    }
}
