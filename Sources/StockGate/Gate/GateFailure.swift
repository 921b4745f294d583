import RedisClient

/// Why Redis gave no reply, and whether it may have run the script.
struct GateFailure: Error, Sendable {
    /// Whether the call may have run.
    let sent: Bool
    /// The word that the breaker records for this failure.
    let label: String
    /// What the log says: Redis' own words, where Redis answered.
    let words: String
    /// Whether Redis itself is in trouble. False for a call that this process gave up, and for trouble with one product's keys.
    let isTrouble: Bool
    /// Whether Redis is well, but what it holds for this product cannot be used: a key has another type or content.
    let isOfProduct: Bool
    /// Whether the node does not serve the product's slot, or not all keys of it. The call has not run then.
    let isOfSlot: Bool
    /// The error by which a node of a cluster says that the map of the slots may be old; nil for every other failure.
    let saysOfSlots: RedisServerError?

    init(_ error: RedisError) {
        switch error.code {
        case .server(let server):
            let isOfProduct = server.isOfKeys
            let isOfSlot = server.isOfSlot
            self.init(
                // A script that was refused before it began has changed nothing.
                sent: !server.kind.isRefusedBeforeExecution,
                label: server.kind.rawValue,
                words: "Redis: " + server.message.firstLine,
                isTrouble: !isOfProduct && !isOfSlot,
                isOfProduct: isOfProduct,
                isOfSlot: isOfSlot,
                saysOfSlots: isOfSlot || server.kind == .clusterDown ? server : nil
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

    init(
        sent: Bool,
        label: String,
        words: String? = nil,
        isTrouble: Bool,
        isOfProduct: Bool = false,
        isOfSlot: Bool = false,
        saysOfSlots: RedisServerError? = nil
    ) {
        self.sent = sent
        self.label = label
        self.words = words ?? label
        self.isTrouble = isTrouble
        self.isOfProduct = isOfProduct
        self.isOfSlot = isOfSlot
        self.saysOfSlots = saysOfSlots
    }

    static let notConnected = GateFailure(sent: false, label: "not connected", words: "redis: not connected", isTrouble: true)
    /// The breaker keeps calls away from Redis.
    static let breakerOpen = GateFailure(sent: false, label: "breaker open", isTrouble: false)
    /// No master of Redis has the product's keys.
    static let withoutMaster = GateFailure(
        sent: false,
        label: "no master",
        words: "Redis: no master has the product's keys",
        isTrouble: false
    )
    /// The reply makes no sense, so the script may have run. The script makes its reply from the product's keys, so the keys are at fault.
    static let unreadable = GateFailure(
        sent: true,
        label: "unreadable reply",
        words: "Redis holds what cannot be read: the script's reply makes no sense",
        isTrouble: false,
        isOfProduct: true
    )
}

extension RedisServerError {
    /// Whether a node of a cluster has refused a call because of the slot of its keys: the slot is another node's, is on its way, or is nobody's. A node that says
    /// that the whole cluster is down is in trouble itself.
    var isOfSlot: Bool {
        switch kind {
        case .moved, .ask, .tryAgain: true
        case .clusterDown: message.contains("Hash slot not served")
        default: false
        }
    }

    /// Whether a script failed because of what its product's keys hold. False for an error that a call for any product would meet.
    var isOfKeys: Bool {
        if kind == .wrongType { return true }
        // Rights on commands concern every product, rights on keys only those that have them.
        if kind.rawValue == "NOPERM" { return message.contains(" key") }
        // When a script stumbles over a value, Redis answers with an ERR that names the script. Redis 6 wraps the errors of nested calls in the same way.
        guard kind == .err, message.contains("user_script") else { return false }
        return ![
            "Unknown Redis command", "Wrong number of args", "not allowed", "ermission", "OOM", "READONLY", "read only", "MISCONF",
            "NOREPLICAS",
        ]
        .contains { message.contains($0) }
    }
}

extension String {
    /// The first line, for a log: without control characters, and cut after 200 characters.
    var firstLine: String {
        let line = prefix { !$0.isNewline }.unicodeScalars.filter { $0.value >= 0x20 && $0.value != 0x7F }
        return String(String.UnicodeScalarView(line).prefix(200))
    }

    /// Redis' words without the name of the script, which Redis appends. The same trouble has the same words then, whichever script met it.
    var withoutScript: String {
        firstRange(of: " script: ").map { String(self[..<$0.lowerBound]) } ?? self
    }
}
