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
    static let breakerOpen = GateFailure(sent: false, label: "breaker open", isTrouble: false)
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
