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
}

/// One server that is taken away during the sale and given back.
public struct Disruption: Equatable, Sendable {
    /// How the server is taken away.
    public enum Kind: String, Sendable, CaseIterable {
        /// SIGKILL, then started again.
        case kill
        /// SIGSTOP, then SIGCONT: connections stay open and nothing answers.
        case pause
    }

    /// When the server comes back.
    public enum End: Equatable, Sendable {
        /// At a moment of the sale.
        case at(Moment)
        /// So long after it was taken away.
        case after(Duration)
    }

    /// The server's name in the stack script, such as `redis`.
    public let server: String
    /// How it is taken away.
    public let kind: Kind
    /// When it is taken away.
    public let start: Moment
    /// When it comes back.
    public let end: End

    /// Reads `4s..9s`, `30%..60%`, `30%+5s`, or `4s`, which lasts one second.
    /// - Throws: `PlanError` that says what is wrong with the span.
    public init(server: String, kind: Kind, span: String) throws(PlanError) {
        self.server = server
        self.kind = kind
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
            self.end = .after(.seconds(1))
        }
    }

    /// Reads `product@5s..6s`: a server of the stack, killed for that span.
    /// - Throws: `PlanError` that says what is wrong.
    public init(kill text: String) throws(PlanError) {
        guard let at = text.firstIndex(of: "@"), at > text.startIndex else {
            throw PlanError("'\(text)' names no server: write product@5s..6s")
        }
        let server = String(text[..<at])
        guard server.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }), !server.hasPrefix("-") else {
            throw PlanError("'\(server)' is no name of a server")
        }
        try self.init(server: server, kind: .kill, span: String(text[text.index(after: at)...]))
    }
}

extension Moment {
    /// As it is written.
    var words: String {
        switch self {
        case .elapsed(let time): "\(time.inSeconds.plain)s"
        case .sold(let part): "\((part * 100).plain)%"
        }
    }
}

extension Disruption {
    /// As a reader is told of it.
    var words: String {
        switch end {
        case .at(let moment): "\(server) \(kind.rawValue) \(start.words)..\(moment.words)"
        case .after(let length): "\(server) \(kind.rawValue) \(start.words)+\(length.inSeconds.plain)s"
        }
    }
}
