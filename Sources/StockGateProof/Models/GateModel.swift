public import StockGate

/// A model of what Redis holds for one product, with the replies of the scripts in `StockGate/Gate/Scripts`. Contract tests compare the two.
///
/// With a `fault` the model breaks a rule; without one it keeps the protocol.
public struct GateModel: Hashable, Sendable {
    /// A reservation that is neither settled nor released.
    public struct Pending: Hashable, Sendable {
        /// The key that made the reservation.
        public var key: String
        /// The reservation's token.
        public var token: Token
        /// The units that the counter was lowered by.
        public var quantity: Quantity
        /// When the reservation was made, in milliseconds.
        public var time: Int64
        /// Whether a twin joined the reservation.
        public var isShared: Bool
    }

    /// A signed delta that waits for the install of its fence.
    public struct Owed: Hashable, Sendable {
        /// The fence that it was committed under.
        public var fence: Fence
        /// The units of the delta, signed.
        public var delta: Int64
    }

    /// A mark that a key is settled.
    public struct Mark: Hashable, Sendable {
        /// The key.
        public var key: String
        /// When the key was settled, in milliseconds.
        public var time: Int64
    }

    /// One member of a settle.
    public struct SettleEntry: Hashable, Sendable {
        /// The key to mark.
        public var key: String
        /// The key's reservation.
        public var held: Held

        /// Creates an entry.
        public init(key: String, held: Held) {
            self.key = key
            self.held = held
        }
    }

    /// One member of a release.
    public struct ReleaseEntry: Hashable, Sendable {
        /// The key.
        public var key: String
        /// The key's reservation.
        public var held: Held
        /// Whether the key's commit did not run. Then a reservation that a twin joined stays.
        public var isAbandoned: Bool

        /// Creates an entry.
        public init(key: String, held: Held, isAbandoned: Bool) {
            self.key = key
            self.held = held
            self.isAbandoned = isAbandoned
        }
    }

    /// One member of an apply.
    public struct ApplyEntry: Hashable, Sendable {
        /// The fence of the commit.
        public var fence: Fence
        /// The units of the change, signed.
        public var delta: Int64
        /// The key that gets a mark; empty for an increase.
        public var key: String

        /// Creates an entry.
        public init(fence: Fence, delta: Int64, key: String) {
            self.fence = fence
            self.delta = delta
            self.key = key
        }
    }

    /// The units that can be reserved; nil: the product is not loaded or not on sale, or the counter was lost.
    public var counter: Int64?
    /// The fence whose install says that the product is not on sale; nil: the last install says that it is on sale.
    public var off: Fence?
    /// The fence of the last install; 0: there was none.
    public var fence: Fence = 0
    /// The name of the ledger that installed the product; nil if nobody did, or a version that wrote no name.
    public var ledger: String?
    /// The dataset that the product was installed into.
    public var stamp: String?
    /// The product's part of the dataset's name.
    public var marker: String?
    /// The last token.
    public var sequence: Int64 = 0
    /// Reservations, sorted by key.
    public var pending: [Pending] = []
    /// Deltas for later installs, sorted by fence.
    public var owed: [Owed] = []
    /// Marks, sorted by key.
    public var marks: [Mark] = []

    /// Creates an empty gate.
    public init() {}

    /// The keys of a product, by their names in Redis.
    public enum Key: String, CaseIterable, Sendable {
        /// The counter; fence, stamp and sequence; reservations; deltas; marks; the product's part of the dataset's name.
        case stock, meta, pending, owed, marks, marker
    }

    /// Deletes a key, like `DEL`.
    public mutating func lose(_ key: Key) {
        switch key {
        case .stock: counter = nil
        case .meta: (fence, stamp, off, ledger, sequence) = (0, nil, nil, nil, 0)
        case .pending: pending = []
        case .owed: owed = []
        case .marks: marks = []
        case .marker: marker = nil
        }
    }

    /// Whether another ledger than the one with this name installed the product.
    public func isForeign(to ledger: String) -> Bool {
        self.ledger != nil && self.ledger != ledger && !ledger.isEmpty
    }

    /// Whether a reserve of this ledger that passes this dataset would be served.
    public func isLoaded(dataset: String, ledger: String = "", fault: Fault? = nil) -> Bool {
        guard fence > 0 else { return false }
        guard !isForeign(to: ledger) || fault == .foreignUsed else { return false }
        guard counter != nil || off == fence || fault == .lostCounterTrusted else { return false }
        if fault == .stampIgnored { return true }
        guard let marker else { return false }
        return stamp == dataset + ":" + marker
    }

    // MARK: The scripts

    /// `reserve.lua` with one request. `dataset` is the connection's part, without the marker.
    public mutating func reserve(
        key: String,
        quantity: Quantity,
        dataset: String,
        now: Int64,
        ledger: String = "",
        fault: Fault? = nil
    ) -> ReserveReply {
        guard isLoaded(dataset: dataset, ledger: ledger, fault: fault) else { return .notLoaded }
        let reply = decide(key: key, quantity: quantity, token: nextToken, now: now, fault: fault)
        if case .reserved = reply { used(fault) }
        return reply
    }

    /// `reserve.lua` with several requests, which are decided in their order. All that one call reserves has one token.
    public mutating func reserve(
        _ requests: [(key: String, quantity: Quantity)],
        dataset: String,
        now: Int64,
        ledger: String = "",
        fault: Fault? = nil
    ) -> [ReserveReply] {
        guard isLoaded(dataset: dataset, ledger: ledger, fault: fault) else { return requests.map { _ in .notLoaded } }
        let token = nextToken
        var hasReserved = false
        let replies = requests.map { request in
            let reply = decide(key: request.key, quantity: request.quantity, token: token, now: now, fault: fault)
            if case .reserved = reply { hasReserved = true }
            return reply
        }
        if hasReserved { used(fault) }
        return replies
    }

    private var nextToken: Token { Token(sequence + 1) }

    /// The next token was given to a reservation.
    private mutating func used(_ fault: Fault?) {
        if fault != .tokenGivenAgain { sequence += 1 }
    }

    private mutating func decide(key: String, quantity: Quantity, token: Token, now: Int64, fault: Fault?) -> ReserveReply {
        if markIndex(key).isFound { return .alreadyDone }
        let place = pendingIndex(key)
        if place.isFound {
            pending[place.index].isShared = true
            if fault == .joinTakesAgain, let counter { self.counter = counter - quantity.rawValue }
            let held = pending[place.index]
            return .joined(fence: fence, token: held.token, quantity: held.quantity)
        }
        guard let counter else { return .notOnSale }
        guard counter >= quantity.rawValue else { return .soldOut(counter: counter) }
        self.counter = counter - quantity.rawValue
        if fault == .settleBeforeCommit {
            mark(key, at: now)
        } else {
            pending.insert(Pending(key: key, token: token, quantity: quantity, time: now, isShared: false), at: place.index)
        }
        return .reserved(fence: fence, token: token, left: counter - quantity.rawValue)
    }

    /// What `settle.lua` does. Returns how many reservations were dropped.
    public mutating func settle(_ entries: [SettleEntry], now: Int64, retention: Int64, fault: Fault? = nil) -> Int64 {
        var forgotten: Int64 = 0
        for entry in entries {
            mark(entry.key, at: now)
            let place = pendingIndex(entry.key)
            guard place.isFound else { continue }
            guard
                fence > 0 && entry.held.fence == fence && pending[place.index].token == entry.held.token || fault == .settleWithoutToken
            else {
                continue
            }
            pending.remove(at: place.index)
            forgotten += 1
        }
        prune(olderThan: now - retention, atMost: 2 + 4 * entries.count)
        return forgotten
    }

    /// What `release.lua` does. Returns how many reservations were given back.
    public mutating func release(_ entries: [ReleaseEntry], fault: Fault? = nil) -> Int64 {
        var given: Int64 = 0
        for entry in entries {
            guard fence > 0 && entry.held.fence == fence || fault == .releaseWithoutFence else { continue }
            let place = pendingIndex(entry.key)
            guard place.isFound else { continue }
            let held = pending[place.index]
            guard held.token == entry.held.token || fault == .releaseWithoutToken else { continue }
            guard !entry.isAbandoned || !held.isShared else { continue }
            pending.remove(at: place.index)
            if let counter {
                self.counter = counter + held.quantity.rawValue
            } else if fault == .releaseMakesCounter {
                counter = held.quantity.rawValue
            }
            given += 1
        }
        return given
    }

    /// What `apply.lua` does.
    public mutating func apply(_ entries: [ApplyEntry], now: Int64, ledger: String = "", fault: Fault? = nil) -> [ApplyReply] {
        if isForeign(to: ledger), fault != .appliedToForeign { return entries.map { _ in .passed } }
        let isCounted = counter != nil
        return entries.map { entry in
            if !entry.key.isEmpty { mark(entry.key, at: now) }
            if entry.fence == fence || fault == .applyUnderAnyFence {
                if isCounted, let counter { self.counter = counter + entry.delta }
                return .applied
            }
            guard entry.fence > fence else { return .passed }
            if self.ledger == nil, !ledger.isEmpty { self.ledger = ledger }
            let index = owed.firstIndex { $0.fence >= entry.fence } ?? owed.endIndex
            if index < owed.endIndex, owed[index].fence == entry.fence {
                owed[index].delta += entry.delta
            } else {
                owed.insert(Owed(fence: entry.fence, delta: entry.delta), at: index)
            }
            return .behind
        }
    }

    /// What `install.lua` does.
    /// - Parameters:
    ///   - read: the dataset, with its marker, that was read before the bump
    ///   - dataset: the present one of the connection, without the marker
    public mutating func install(
        _ ledger: Resync.LedgerState,
        read: String,
        dataset: String,
        ledger name: String = "",
        fault: Fault? = nil
    ) -> InstallReply {
        var stamped = read
        if fault == .datasetIgnored {
            let marker = self.marker ?? "?"
            self.marker = marker
            stamped = dataset + ":" + marker
        } else {
            guard let marker, read == dataset + ":" + marker else { return .datasetChanged }
        }
        if isForeign(to: name), fault != .foreignOverwritten { return .foreign }
        if fence >= ledger.fence && fault != .installOlder { return .newer }
        let delta = fault == .owedNotCounted ? 0 : owed.first { $0.fence == ledger.fence }?.delta ?? 0
        owed.removeAll { $0.fence <= ledger.fence || fault == .owedClearedWhole }
        counter = ledger.isOnSale || fault == .gateLeftOpen ? ledger.stock + delta : nil
        off = ledger.isOnSale || fault == .offUnwritten ? nil : ledger.fence
        fence = ledger.fence
        stamp = stamped
        if !name.isEmpty { self.ledger = name }
        if fault != .installKeepsPending { pending = [] }
        return .installed
    }

    /// What `void.lua` does. Returns 1 if there was something to void.
    public mutating func void(ledger: String = "", fault: Fault? = nil) -> Int64 {
        if isForeign(to: ledger), fault != .foreignVoided { return 0 }
        if fault == .leftServed { return 0 }
        defer { stamp = nil }
        if fault == .voidForgetsFence { fence = 0 }
        return stamp == nil ? 0 : 1
    }

    /// `mend.lua`: removes all keys of the product except the marks. Returns how many keys there were.
    public mutating func mend(ledger: String = "", fault: Fault? = nil) -> Int64 {
        if isForeign(to: ledger), fault != .foreignMended { return 0 }
        let hasMeta = fence != 0 || stamp != nil || sequence != 0 || off != nil || self.ledger != nil
        let removed = [counter != nil, hasMeta, !pending.isEmpty, !owed.isEmpty, marker != nil].count { $0 }
        let marks = self.marks
        self = GateModel()
        self.marks = marks
        return Int64(removed)
    }

    /// What `look.lua` does: sets the marker if there is none, unless `newMarker` is empty.
    public mutating func look(newMarker: String, dataset: String, fault: Fault? = nil) -> GateView {
        if marker == nil, !newMarker.isEmpty { marker = newMarker }
        return GateView(
            dataset: dataset + ":" + (marker ?? ""),
            stamp: stamp,
            fence: fence,
            counter: counter,
            pending: pending.count,
            isOffSale: off != nil && off == fence,
            highestFence: fault == .owedFencesForgotten ? nil : owed.last?.fence,
            ledger: ledger
        )
    }

    /// All steps of `overdue.lua` together. Returns the reservations that have been pending for longer than the bound, in milliseconds.
    public func overdue(now: Int64, bound: Int64) -> [Pending] {
        pending.filter { abs(now - $0.time) > bound }
    }

    /// What `prune.lua` does. Returns how many marks were removed.
    public mutating func prune(before bound: Int64, atMost limit: Int, ledger: String = "") -> Int64 {
        guard !isForeign(to: ledger) else { return 0 }
        let count = marks.count
        prune(olderThan: bound, atMost: limit)
        return Int64(count - marks.count)
    }

    // MARK: Sorted arrays

    private func pendingIndex(_ key: String) -> (index: Int, isFound: Bool) {
        let index = pending.firstIndex { $0.key >= key } ?? pending.endIndex
        return (index, index < pending.endIndex && pending[index].key == key)
    }

    private func markIndex(_ key: String) -> (index: Int, isFound: Bool) {
        var low = 0
        var high = marks.count
        while low < high {
            let middle = (low + high) / 2
            if marks[middle].key < key { low = middle + 1 } else { high = middle }
        }
        return (low, low < marks.count && marks[low].key == key)
    }

    private mutating func mark(_ key: String, at time: Int64) {
        let place = markIndex(key)
        if place.isFound { marks[place.index].time = time } else { marks.insert(Mark(key: key, time: time), at: place.index) }
    }

    private mutating func prune(olderThan bound: Int64, atMost limit: Int) {
        let old = marks.filter { $0.time < bound }.sorted { ($0.time, $0.key) < ($1.time, $1.key) }.prefix(limit)
        guard !old.isEmpty else { return }
        let gone = Set(old.map(\.key))
        marks.removeAll { gone.contains($0.key) }
    }
}
