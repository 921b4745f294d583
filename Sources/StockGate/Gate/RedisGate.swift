// The gate in Redis, as one event loop sees it: what is sent for one product in one turn of the loop goes out in one script call.
//
// Invariant: an apply is handed to a connection at most once. Settles and releases that cannot be sent are dropped: the sweep or the next
//   resync finds their reservations.
// Bounds: what waits here is bounded by the requests in flight; one script call carries at most `maximumTold` entries.

import CircuitBreaker
import NIOCore
import RedisClient

/// Why Redis gave no reply, and whether it may have run the script.
struct GateFailure: Error, Sendable {
    /// Whether the call may have run.
    let sent: Bool
    /// What the breaker is told.
    let label: String
    /// What the log is told: Redis' own words where it said any.
    let words: String
    /// Whether this is trouble with Redis itself, as against a call that this process gave up, or one product's keys.
    let isTrouble: Bool
    /// Whether what Redis holds for this product cannot be used, while Redis itself is well: a key of another type, or of another content.
    let isOfProduct: Bool

    init(_ error: RedisError) {
        switch error.code {
        case .server(let server):
            let isOfProduct = server.isOfKeys
            self.init(
                // A script that was refused before it began has run nothing.
                sent: !server.kind.isRefusedBeforeExecution,
                label: server.kind.rawValue,
                words: "Redis: " + server.message.firstLine,
                isTrouble: !isOfProduct,
                isOfProduct: isOfProduct
            )
        case .timedOut:
            self.init(sent: error.isOutcomeUnknown, label: "timeout", words: error.description, isTrouble: true)
        case .connectionLost, .notConnected, .protocolViolation:
            self.init(
                sent: error.isOutcomeUnknown,
                label: String(describing: error.code),
                words: error.description,
                isTrouble: true
            )
        default:
            self.init(
                sent: error.isOutcomeUnknown,
                label: String(describing: error.code),
                words: error.description,
                isTrouble: false
            )
        }
    }

    init(sent: Bool, label: String, words: String? = nil, isTrouble: Bool, isOfProduct: Bool = false) {
        self.sent = sent
        self.label = label
        self.words = words ?? label
        self.isTrouble = isTrouble
        self.isOfProduct = isOfProduct
    }

    static let notConnected = GateFailure(sent: false, label: "not connected", words: "redis: not connected", isTrouble: true)
    /// The breaker keeps calls away from Redis.
    static let kept = GateFailure(sent: false, label: "breaker open", isTrouble: false)
}

extension RedisServerError {
    /// Whether a script failed over what the keys of its product hold, as against an error that every product's call would meet.
    var isOfKeys: Bool {
        if kind == .wrongType { return true }
        // A script that stumbles over a value is an ERR that names the script (Redis 6 wraps the nested call's error too).
        guard kind == .err, message.contains("user_script") else { return false }
        return ![
            "Unknown Redis command", "Wrong number of args", "not allowed", "ermission", "OOM", "READONLY", "read only", "MISCONF",
            "NOREPLICAS",
        ]
        .contains { message.contains($0) }
    }
}

extension String {
    /// The first line without control characters, of 200 characters at most: for a log.
    var firstLine: String {
        let line = prefix { !$0.isNewline }.unicodeScalars.filter { $0.value >= 0x20 && $0.value != 0x7F }
        return String(String.UnicodeScalarView(line).prefix(200))
    }

    /// Redis' words without the name of the script that met the error, which Redis appends: each script fails in the same way.
    var withoutScript: String {
        firstRange(of: " script: ").map { String(self[..<$0.lowerBound]) } ?? self
    }
}

/// What the gate tells of failures, called on its event loop: trouble with Redis itself, and one product's keys that cannot be used.
struct GateReports: Sendable {
    var trouble: @Sendable (GateFailure) -> Void
    var spoiled: @Sendable (ProductID, GateFailure) -> Void
}

/// Times of the gate.
struct GateTimes: Sendable {
    /// For a reserve, which a buyer waits for.
    var command: TimeAmount
    /// For looks, installs, and what nobody waits for.
    var background: TimeAmount
    /// How long a settled mark is kept, milliseconds.
    var markRetention: Int64
}

// @unchecked Sendable: every member is used on `eventLoop` alone; each entry point checks that.
final class RedisGate: @unchecked Sendable {
    typealias Answer<Value> = (Result<Value, GateFailure>) -> Void

    /// Entries in one script call at most. Lua's `unpack` and one turn of Redis both want it small.
    static let maximumTold = 400

    let eventLoop: any EventLoop
    /// The name of the ledger whose data is used; empty until it is known, and where the ledger has none.
    private(set) var ledgerName = ""
    private let client: RedisClient
    private let breaker: CircuitBreaker
    private let times: GateTimes
    private let figures: EngineCounters
    private let reports: GateReports

    private struct Reserving {
        var keys: GateKeys
        var requests: [(request: DecreaseRequest, answer: Answer<ReserveReply>)] = []
    }
    private var reserving: [ProductID: Reserving] = [:]

    private struct Told {
        var keys: GateKeys
        var settles: [(held: Held, key: String)] = []
        var releases: [(held: Held, key: String, abandoned: Bool)] = []
        var applies: [(fence: Fence, delta: Int64, key: String, answer: Answer<ApplyReply>)] = []
    }
    private var told: [ProductID: Told] = [:]
    private var isFlushScheduled = false

    init(
        eventLoop: any EventLoop,
        client: RedisClient,
        breaker: CircuitBreaker,
        times: GateTimes,
        figures: EngineCounters,
        reports: GateReports
    ) {
        self.reports = reports
        self.eventLoop = eventLoop
        self.client = client
        self.breaker = breaker
        self.times = times
        self.figures = figures
    }

    /// To be called on the loop.
    func serve(ledger name: String) {
        eventLoop.preconditionInEventLoop()
        ledgerName = name
    }

    // MARK: Reserve

    /// Takes units at the gate. The caller holds a permit of the breaker, and records the outcome.
    func reserve(_ request: DecreaseRequest, _ keys: GateKeys, answer: @escaping Answer<ReserveReply>) {
        eventLoop.preconditionInEventLoop()
        reserving[request.product, default: Reserving(keys: keys)].requests.append((request, answer))
        flushSoon()
    }

    private func send(_ product: ProductID, _ reserving: Reserving) {
        guard let connection = client.connection(on: eventLoop), let info = connection.attachment as? GateConnectionInfo else {
            for (_, answer) in reserving.requests { answer(.failure(.notConnected)) }
            return
        }
        let keys = reserving.keys
        for part in Chunks(reserving.requests, of: Self.maximumTold) {
            figures.reserves.add(UInt64(part.count))
            figures.reserveCalls.add(1)
            call(
                connection,
                info,
                .reserve,
                keys: [keys.stock, keys.meta, keys.pending, keys.marks, keys.marker],
                argumentCount: 3 + 2 * part.count,
                timeout: times.command
            ) { writer in
                writer.write(info.dataset)
                writer.write(WallClock.milliseconds())
                writer.write(self.ledgerName)
                for (request, _) in part {
                    writer.write(request.key)
                    writer.write(request.quantity)
                }
            } answer: { result in
                switch result {
                case .success(let value):
                    let replies = ReserveReplies(value, count: part.count)
                    for (index, entry) in part.enumerated() {
                        guard let reply = replies?[index] else {
                            self.report(.unreadable, of: product)
                            entry.answer(.failure(.unreadable))
                            continue
                        }
                        entry.answer(.success(reply))
                    }
                case .failure(let failure):
                    self.report(failure, of: product)
                    for (_, answer) in part { answer(.failure(failure)) }
                }
            }
        }
    }

    /// Tells the engine, before those who asked are answered: they go on without Redis.
    private func report(_ failure: GateFailure, of product: ProductID) {
        if failure.isOfProduct { reports.spoiled(product, failure) } else if failure.isTrouble { reports.trouble(failure) }
    }

    // MARK: Settle, release, apply

    func settle(_ product: ProductID, _ keys: GateKeys, _ held: Held, key: String) {
        tell(product, keys) { $0.settles.append((held, key)) }
    }

    func release(_ product: ProductID, _ keys: GateKeys, _ held: Held, key: String, abandoned: Bool) {
        tell(product, keys) { $0.releases.append((held, key, abandoned)) }
    }

    /// - Parameter key: the decrement's key, which gets a mark; empty for an increase.
    func apply(_ product: ProductID, _ keys: GateKeys, _ fence: Fence, delta: Int64, key: String, answer: @escaping Answer<ApplyReply>) {
        tell(product, keys) { $0.applies.append((fence, delta, key, answer)) }
    }

    private func tell(_ product: ProductID, _ keys: GateKeys, _ change: (inout Told) -> Void) {
        eventLoop.preconditionInEventLoop()
        change(&told[product, default: Told(keys: keys)])
        flushSoon()
    }

    private func flushSoon() {
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        // At the end of this turn: what came in one read, and what one commit answers, leaves in one call. Nothing waits for a timer.
        eventLoop.execute { self.flush() }
    }

    private func flush() {
        isFlushScheduled = false
        let waiting = reserving
        reserving.removeAll(keepingCapacity: true)
        for (product, reserving) in waiting { send(product, reserving) }
        let all = told
        told.removeAll(keepingCapacity: true)
        for (product, told) in all { send(product, told) }
    }

    /// Whether Redis may be told now. While the breaker is open nothing goes there: its recovery gate resyncs every product.
    private var connectionForTelling: (RedisConnection, GateConnectionInfo)? {
        switch breaker.state {
        case .open, .forcedOpen: return nil
        case .closed, .halfOpen, .disabled, .metricsOnly: break
        }
        guard let connection = client.connection(on: eventLoop), let info = connection.attachment as? GateConnectionInfo else { return nil }
        return (connection, info)
    }

    private func send(_ product: ProductID, _ told: Told) {
        guard let (connection, info) = connectionForTelling else {
            figures.untold.add(UInt64(told.settles.count + told.releases.count))
            for apply in told.applies { apply.answer(.failure(.kept)) }
            return
        }
        let keys = told.keys
        for part in Chunks(told.settles, of: Self.maximumTold) {
            call(
                connection,
                info,
                .settle,
                keys: [keys.meta, keys.pending, keys.marks],
                argumentCount: 2 + 3 * part.count,
                timeout: times.background
            ) { writer in
                writer.write(WallClock.milliseconds())
                writer.write(self.times.markRetention)
                for entry in part {
                    writer.write(entry.held.fence)
                    writer.write(entry.key)
                    writer.write(entry.held.token)
                }
            } answer: {
                self.note($0, of: product)
            }
        }
        for part in Chunks(told.releases, of: Self.maximumTold) {
            call(
                connection,
                info,
                .release,
                keys: [keys.stock, keys.meta, keys.pending],
                argumentCount: 4 * part.count,
                timeout: times.background
            ) { writer in
                for entry in part {
                    writer.write(entry.held.fence)
                    writer.write(entry.key)
                    writer.write(entry.held.token)
                    writer.write(entry.abandoned ? "A" as StaticString : "R")
                }
            } answer: {
                self.note($0, of: product)
            }
        }
        for part in Chunks(told.applies, of: Self.maximumTold) {
            call(
                connection,
                info,
                .apply,
                keys: [keys.stock, keys.meta, keys.owed, keys.marks],
                argumentCount: 2 + 3 * part.count,
                timeout: times.background
            ) { writer in
                writer.write(WallClock.milliseconds())
                writer.write(self.ledgerName)
                for entry in part {
                    writer.write(entry.fence)
                    writer.write(entry.delta)
                    writer.write(entry.key)
                }
            } answer: { result in
                self.note(result, of: product)
                let replies = (try? result.get())?.array ?? []
                for (index, entry) in part.enumerated() {
                    if index < replies.count, let reply = replies[index].int.flatMap(ApplyReply.init(rawValue:)) {
                        entry.answer(.success(reply))
                    } else if case .failure(let failure) = result {
                        entry.answer(.failure(failure))
                    } else {
                        self.report(.unreadable, of: product)
                        entry.answer(.failure(.unreadable))
                    }
                }
            }
        }
    }

    /// What nobody waits for tells the breaker only of trouble, and only while it is closed: in half-open the probes decide.
    private func note(_ result: Result<RedisValue, GateFailure>, of product: ProductID) {
        guard case .failure(let failure) = result else { return }
        report(failure, of: product)
        guard failure.isTrouble, breaker.state == .closed else { return }
        guard case .permitted(let permit) = breaker.admit() else { return }
        breaker.record(.failure(failure.label), for: permit)
    }

    // MARK: Look, install, sweep

    /// - Parameter marker: what to name the dataset if the product has no marker; nil changes nothing.
    func look(_ keys: GateKeys, marker: String?, answer: @escaping Answer<GateView>) {
        background(.look, keys: [keys.stock, keys.meta, keys.pending, keys.marker, keys.owed], arguments: { _ in [.string(marker ?? "")] })
        {
            info,
            value in
            guard let parts = value.array, parts.count == 8, let marker = parts[0].string, let stamp = parts[1].string,
                let fence = parts[2].int, let counter = parts[3].string, let pending = parts[4].int, let off = parts[5].int,
                let highest = parts[6].int, let ledger = parts[7].string
            else { return nil }
            return GateView(
                dataset: "\(info.dataset):\(marker)",
                stamp: stamp.isEmpty ? nil : stamp,
                fence: fence,
                // What is no whole number of 64 bits is wrong whatever the stock is; taken for no counter, it would look right for a product that is not on sale.
                counter: counter.isEmpty ? nil : Int64(counter) ?? .min,
                pending: Int(pending),
                isOffSale: off == 1,
                highestFence: highest,
                ledger: ledger.isEmpty ? nil : ledger
            )
        } answer: {
            answer($0)
        }
    }

    func install(_ keys: GateKeys, dataset: String, _ ledger: Resync.LedgerState, answer: @escaping Answer<InstallReply>) {
        background(
            .install,
            keys: [keys.stock, keys.meta, keys.pending, keys.owed, keys.marker],
            arguments: { info in
                [
                    .integer(ledger.fence), .integer(ledger.stock), .integer(ledger.isOnSale ? 1 : 0), .string(dataset),
                    .string(info.dataset), .string(self.ledgerName),
                ]
            },
            decode: { _, value in value.int.flatMap(InstallReply.init(rawValue:)) },
            answer: answer
        )
    }

    /// Has Redis serve a product no longer, to any server, until it is installed anew. Another ledger's data is left alone.
    func void(_ keys: GateKeys, answer: @escaping Answer<Int64>) {
        background(
            .void,
            keys: [keys.meta],
            arguments: { _ in [.string(self.ledgerName)] },
            decode: { _, value in value.int },
            answer: answer
        )
    }

    /// Has Redis forget a product whose keys cannot be used. Another ledger's data is left alone.
    func mend(_ keys: GateKeys, answer: @escaping Answer<Int64>) {
        background(
            .mend,
            keys: [keys.stock, keys.meta, keys.pending, keys.owed, keys.marks, keys.marker],
            arguments: { _ in [.string(self.ledgerName)] },
            decode: { _, value in value.int },
            answer: answer
        )
    }

    /// Whether this loop's connection is ready. Asking starts to connect.
    var isConnected: Bool {
        eventLoop.preconditionInEventLoop()
        return client.connection(on: eventLoop)?.attachment is GateConnectionInfo
    }

    /// One bounded step of the sweep.
    func overdue(_ keys: GateKeys, cursor: String, bound: TimeAmount, answer: @escaping Answer<(cursor: String, overdue: Int64)>) {
        background(
            .overdue,
            keys: [keys.pending],
            arguments: { _ in [.string(cursor), .integer(WallClock.milliseconds()), .integer(bound.nanoseconds / 1_000_000)] },
            decode: { _, value in
                guard let parts = value.array, parts.count == 2, let next = parts[0].string, let overdue = parts[1].int else { return nil }
                return (next, overdue)
            },
            answer: answer
        )
    }

    /// Marks that one step of pruning takes at most: a fraction of a millisecond of Redis' time.
    static let maximumPruned = 500

    /// One bounded step of pruning: how many marks went.
    func prune(_ keys: GateKeys, answer: @escaping Answer<Int64>) {
        background(
            .prune,
            keys: [keys.marks, keys.meta],
            arguments: { _ in
                [
                    .integer(WallClock.milliseconds() - self.times.markRetention), .integer(Int64(Self.maximumPruned)),
                    .string(self.ledgerName),
                ]
            },
            decode: { _, value in value.int },
            answer: answer
        )
    }

    private func background<Value>(
        _ script: GateScript,
        keys: [String],
        arguments: (GateConnectionInfo) -> [RedisArgument],
        decode: @escaping (GateConnectionInfo, RedisValue) -> Value?,
        answer: @escaping Answer<Value>
    ) {
        eventLoop.preconditionInEventLoop()
        guard let connection = client.connection(on: eventLoop), let info = connection.attachment as? GateConnectionInfo else {
            return answer(.failure(.notConnected))
        }
        let arguments = arguments(info)
        call(connection, info, script, keys: keys, argumentCount: arguments.count, timeout: times.background) { writer in
            for argument in arguments { writer.write(argument) }
        } answer: { result in
            answer(
                result.flatMap { value in
                    decode(info, value).map { .success($0) } ?? .failure(.unreadable)
                }
            )
        }
    }

    // MARK: Calls

    private func call(
        _ connection: RedisConnection,
        _ info: GateConnectionInfo,
        _ script: GateScript,
        keys: [String],
        argumentCount: Int,
        timeout: TimeAmount,
        arguments: @escaping (inout RedisCommandWriter) -> Void,
        answer: @escaping Answer<RedisValue>
    ) {
        func send(_ command: StaticString, _ body: String, _ completion: @escaping (Result<RedisValue, RedisError>) -> Void) {
            _ = connection.send(argumentCount: 3 + keys.count + argumentCount, deadline: .now() + timeout, completion: completion) {
                writer in
                writer.write(command)
                writer.write(body)
                writer.write(Int64(keys.count))
                for key in keys { writer.write(key) }
                arguments(&writer)
            }
        }
        send("EVALSHA", info.scripts[script.rawValue]) { result in
            switch result {
            case .success(let value): answer(.success(value))
            case .failure(let error) where error.serverError?.kind == .noScript:
                // Redis forgot the script (SCRIPT FLUSH) and so has not run it: the one case in which a call is sent again, with its source.
                send("EVAL", script.source) { answer($0.mapError(GateFailure.init)) }
            case .failure(let error):
                // The server became a replica under a connection that lives on: what the connection learnt of the dataset is void.
                if error.serverError?.kind == .readOnly { connection.close() }
                answer(.failure(GateFailure(error)))
            }
        }
    }
}

extension GateFailure {
    /// The reply makes no sense: whatever the script did, it may have done it.
    /// The script's own reply is made from the product's keys, so it is their fault.
    static let unreadable = GateFailure(
        sent: true,
        label: "unreadable reply",
        words: "Redis holds what cannot be read: the script's reply makes no sense",
        isTrouble: false,
        isOfProduct: true
    )
}

/// The reply of `Scripts/reserve.lua`.
struct ReserveReplies {
    private let values: [RedisValue]
    private let fence: Fence

    /// Nil unless it is as long as it must be.
    init?(_ value: RedisValue, count: Int) {
        guard let values = value.array, values.count == 1 + 3 * count, let fence = values[0].int else { return nil }
        self.values = values
        self.fence = fence
    }

    /// Nil if it makes no sense.
    subscript(index: Int) -> ReserveReply? {
        let at = 1 + 3 * index
        guard let code = values[at].int, let first = values[at + 1].int, let second = values[at + 2].int else { return nil }
        switch code {
        case 0: return .reserved(fence: fence, token: first, left: second)
        case 1: return .joined(fence: fence, token: first, quantity: second)
        case 2: return .soldOut(counter: first)
        case 3: return .notLoaded
        case 4: return .notOnSale
        case 5: return .alreadyDone
        default: return nil
        }
    }
}

/// Consecutive parts of an array.
struct Chunks<Element>: Sequence, IteratorProtocol {
    private var rest: ArraySlice<Element>
    private let size: Int

    init(_ elements: [Element], of size: Int) {
        self.rest = elements[...]
        self.size = size
    }

    mutating func next() -> ArraySlice<Element>? {
        guard !rest.isEmpty else { return nil }
        defer { rest = rest.dropFirst(size) }
        return rest.prefix(size)
    }
}
