/// A moment of the sale: so long after it opened, or when that part of the units is sold.
public enum Moment: Equatable, Sendable {
    /// Time since the sale opened.
    case elapsed(Duration)
    /// Units confirmed to buyers, as a fraction of the units on sale, between 0 and 1.
    case sold(Double)

    /// Reads `4s` or `30%`.
    /// - Throws: `PlanError` that names the text and the expected form.
    public init(_ text: String) throws(PlanError) {
        guard text.hasSuffix("%") else {
            do {
                self = .elapsed(try Duration(span: text))
            } catch {
                throw PlanError("'\(text)' is no moment of the sale: write 4s (since it opened) or 30% (of the units sold)")
            }
            return
        }
        guard let value = Double(text.dropLast()), value >= 0, value < 100 else {
            throw PlanError("'\(text)' is no part of the units: write 0% to 99%")
        }
        self = .sold(value / 100)
    }

    /// Whether the moment has come.
    public func isReached(elapsed: Duration, soldFraction: Double) -> Bool {
        switch self {
        case .elapsed(let moment): elapsed >= moment
        case .sold(let fraction): soldFraction >= fraction
        }
    }

    /// The moment as it is written.
    var words: String {
        switch self {
        case .elapsed(let time): "\(time.inSeconds.plain)s"
        case .sold(let part): "\((part * 100).plain)%"
        }
    }
}

/// A fault: something that is done to one server during the sale, and undone.
public struct Disruption: Equatable, Sendable {
    /// What is done.
    public enum Kind: Equatable, Sendable {
        /// SIGKILL, then started again.
        case kill
        /// SIGSTOP, then SIGCONT: connections stay open and nothing answers.
        case pause
        /// Everything that Redis holds is deleted, once.
        case flush
        /// Every connection to the server is ended, once: of Redis and PostgreSQL by themselves, of others by a proxy before them.
        case cut
        /// A proxy before the server holds every answer back so long.
        case slow(Duration)
        /// A proxy before the server holds requests and answers back by up to so much, at random.
        case jitter(Duration)
        /// A proxy before the server lets so many bytes a second pass, of requests and of answers each.
        case bandwidth(Int)
        /// A proxy before the server takes everything and hands nothing on.
        case stall

        /// Whether the fault is made once and needs no undoing.
        var isOnce: Bool { self == .flush || self == .cut }

        /// The fault as it is written.
        var name: String {
            switch self {
            case .kill: "kill"
            case .pause: "pause"
            case .flush: "flush"
            case .cut: "cut"
            case .slow(let time): "slow=\((time.inSeconds * 1000).plain)ms"
            case .jitter(let time): "jitter=\((time.inSeconds * 1000).plain)ms"
            case .bandwidth(let bytes): "bandwidth=\(bytes)"
            case .stall: "stall"
            }
        }

        /// What has been done to the server.
        var words: String {
            switch self {
            case .kill: "killed"
            case .pause: "paused"
            case .flush: "flushed"
            case .cut: "cut off"
            case .slow(let time): "slowed by \((time.inSeconds * 1000).plain) ms"
            case .jitter(let time): "slowed by 0 to \((time.inSeconds * 1000).plain) ms each way"
            case .bandwidth(let bytes): "narrowed to \(bytes) bytes a second each way"
            case .stall: "silenced"
            }
        }

        /// Reads `kill`, `pause`, `flush`, `cut`, `stall`, `slow=200ms`, `jitter=20ms` or `bandwidth=64000`, in bytes a second.
        /// - Throws: `PlanError` that lists them.
        init(_ text: String) throws(PlanError) {
            switch text {
            case "kill": self = .kill
            case "pause": self = .pause
            case "flush": self = .flush
            case "cut": self = .cut
            case "stall": self = .stall
            default:
                let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                switch (parts[0], parts.count) {
                case ("slow", 2): self = .slow(try Self.time(parts[1], text))
                case ("jitter", 2): self = .jitter(try Self.time(parts[1], text))
                case ("bandwidth", 2):
                    guard let bytes = Int(parts[1]), (1...1_000_000_000_000).contains(bytes) else {
                        throw PlanError("'\(text)' is no bandwidth: write bandwidth=64000, in bytes a second")
                    }
                    self = .bandwidth(bytes)
                default:
                    throw PlanError("'\(text)' is no fault: kill, pause, flush, cut, stall, slow=200ms, jitter=20ms or bandwidth=64000")
                }
            }
        }

        private static func time(_ text: Substring, _ whole: String) throws(PlanError) -> Duration {
            let time = try Duration(span: String(text))
            guard time >= .milliseconds(1) else { throw PlanError("'\(whole)' slows nothing") }
            return time
        }
    }

    /// When the server comes back.
    public enum End: Equatable, Sendable {
        /// At a moment of the sale.
        case at(Moment)
        /// So long after it was taken away.
        case after(Duration)
    }

    /// The server's name in the stack script, such as `redis`; `redis-master` and `postgres-primary` are whoever takes writes when the moment comes.
    public let server: String
    /// What is done to it.
    public let kind: Kind
    /// When it is done.
    public let start: Moment
    /// When it is undone.
    public let end: End

    /// The store whose leader is meant, for the two names that are a part and not a server.
    var leaderOf: String? {
        switch server {
        case "redis-master": "redis"
        case "postgres-primary": "postgres"
        default: nil
        }
    }

    private init(server: String, kind: Kind, start: Moment, end: End) {
        self.server = server
        self.kind = kind
        self.start = start
        self.end = end
    }

    /// The same fault, at another server.
    func of(_ server: String) -> Disruption {
        Disruption(server: server, kind: kind, start: start, end: end)
    }

    /// Reads `4s..9s`, `30%..60%`, `30%+5s`, or `4s`, which lasts one second, or no time for what is done once.
    /// - Throws: `PlanError` that says what is wrong with the span.
    public init(server: String, kind: Kind, span: String) throws(PlanError) {
        self.server = server
        self.kind = kind
        let isSpan = span.contains("..") || span.contains("+")
        guard !isSpan || !kind.isOnce else { throw PlanError("\(kind.name) is done once: '\(span)' must be a moment, such as 4s") }
        if let dots = span.firstRange(of: "..") {
            let start = try Moment(String(span[..<dots.lowerBound]))
            let end = try Moment(String(span[dots.upperBound...]))
            switch (start, end) {
            case (.elapsed(let from), .elapsed(let to)) where to <= from:
                throw PlanError("'\(span)' ends before it begins")
            case (.sold(let from), .sold(let to)) where to <= from:
                throw PlanError("'\(span)' ends before it begins")
            default:
                break
            }
            self.start = start
            self.end = .at(end)
        } else if let plus = span.firstIndex(of: "+") {
            self.start = try Moment(String(span[..<plus]))
            let length = try Duration(span: String(span[span.index(after: plus)...]))
            guard length > .zero else { throw PlanError("'\(span)' has no length") }
            self.end = .after(length)
        } else {
            self.start = try Moment(span)
            self.end = .after(kind.isOnce ? .zero : .seconds(1))
        }
    }

    /// Reads `product@5s..6s`: a server of the stack, killed for that span.
    /// - Throws: `PlanError` that says what is wrong.
    public init(kill text: String) throws(PlanError) {
        let (server, span) = try Self.split(text, example: "product@5s..6s")
        try self.init(server: server, kind: .kill, span: span)
    }

    /// Reads `redis:pause@4s+2s`, `redis:flush@5s`, `postgres:cut@30%` or `redis:slow=200ms@4s..9s`.
    /// - Throws: `PlanError` that says what is wrong.
    public init(fault text: String) throws(PlanError) {
        let (what, span) = try Self.split(text, example: "redis:pause@4s+2s", extra: ":=.")
        let parts = what.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty else { throw PlanError("'\(text)' names no server and fault: write redis:pause@4s+2s") }
        try self.init(server: String(parts[0]), kind: try Kind(String(parts[1])), span: span)
    }

    private static func split(_ text: String, example: String, extra: String = "") throws(PlanError) -> (String, String) {
        guard let at = text.firstIndex(of: "@"), at > text.startIndex else {
            throw PlanError("'\(text)' names no server: write \(example)")
        }
        let name = String(text[..<at])
        guard name.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || extra.contains($0)) }), !name.hasPrefix("-")
        else {
            throw PlanError("'\(name)' is no name of a server")
        }
        return (name, String(text[text.index(after: at)...]))
    }

    /// As a reader is told of it.
    public var words: String {
        switch end {
        case .at(let moment): "\(server) \(kind.name) \(start.words)..\(moment.words)"
        case .after(let length): "\(server) \(kind.name) \(start.words)" + (length > .zero ? "+\(length.inSeconds.plain)s" : "")
        }
    }
}

extension Disruption.Kind {
    /// The command that sets a proxy so; empty for what no proxy is told.
    var setting: String {
        func milliseconds(_ time: Duration) -> String { "\(Int((time.inSeconds * 1000).rounded()))ms" }
        return switch self {
        case .slow(let time): "latency \(milliseconds(time))"
        case .jitter(let time): "jitter \(milliseconds(time)) \(milliseconds(time))"
        case .bandwidth(let bytes): "bandwidth \(bytes) \(bytes)"
        case .stall: "stall"
        case .kill, .pause, .flush, .cut: ""
        }
    }

    /// Whether both set the same thing.
    func isLike(_ other: Disruption.Kind) -> Bool {
        switch (self, other) {
        case (.slow, .slow), (.jitter, .jitter), (.bandwidth, .bandwidth), (.stall, .stall): true
        default: false
        }
    }

    /// Whether the server is gone meanwhile, so that nothing else can take it away.
    var takesAway: Bool { self == .kill || self == .pause }
}

extension Disruption {
    /// The server by one name: the first of several may be called with its number or without.
    var place: String { server.hasSuffix("-1") ? String(server.dropLast(2)) : server }

    /// From and to as numbers that can be compared with another's of the same scale; nil where only the sale will tell.
    private var range: (isTime: Bool, from: Double, to: Double)? {
        switch (start, end) {
        case (.elapsed(let from), .at(.elapsed(let to))): (true, from.inSeconds, to.inSeconds)
        case (.elapsed(let from), .after(let length)): (true, from.inSeconds, from.inSeconds + length.inSeconds)
        case (.sold(let from), .at(.sold(let to))): (false, from, to)
        default: nil
        }
    }

    /// Finds two faults that take the same server away at the same time: the end of one would give it back to the other.
    static func checkOverlaps(_ disruptions: [Disruption]) throws(PlanError) {
        let takers = disruptions.filter(\.kind.takesAway)
        for (index, one) in takers.enumerated() {
            for other in takers.dropFirst(index + 1) where one.place == other.place {
                guard let first = one.range, let second = other.range, first.isTime == second.isTime,
                    first.from < second.to, second.from < first.to
                else { continue }
                throw PlanError("\(one.words) and \(other.words) overlap: a server can be taken away once at a time")
            }
        }
    }
}
