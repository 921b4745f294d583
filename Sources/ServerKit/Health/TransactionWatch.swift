// Invariant: the log says once that a transaction has been open for too long, and once that it no longer is; the metric shows what the last look found, and nothing
// where that look failed.
//
// Bounds: one look at a time, `interval` apart.

public import Logging
public import ServerMetrics
public import ServiceLifecycle
import Synchronization

/// Decides when the age of the oldest open transaction is worth a line in the log.
struct TransactionAlarm {
    /// What to say.
    enum Line: Equatable {
        case tooOld
        case over
    }

    let bound: Duration
    private(set) var isRaised = false

    init(bound: Duration) { self.bound = bound }

    /// A look found the oldest transaction this old; nil: none is open.
    mutating func saw(_ age: Duration?) -> Line? {
        let isTooOld = (age ?? .zero) > bound
        guard isTooOld != isRaised else { return nil }
        isRaised = isTooOld
        return isTooOld ? .tooOld : .over
    }
}

/// Watches how old the oldest open transaction of a server's database is.
///
/// While a transaction is open, PostgreSQL keeps every version of a row that it might still see. A row that is written again and again has a new version with
/// each commit, and each commit walks those that are kept: an analyst's forgotten transaction makes commits slower by the minute.
public struct TransactionWatch: Service, CustomStringConvertible {
    /// The oldest open transaction.
    public struct Oldest: Sendable {
        /// How long it has been open, at least.
        public var age: Duration
        /// Who has it, for an operator.
        public var who: String

        /// Makes the finding of a look.
        public init(age: Duration, who: String) {
            self.age = age
            self.who = who
        }
    }

    private final class State: Sendable {
        let age = Mutex<Double?>(nil)
    }

    private let interval: Duration
    private let bound: Duration
    private let logger: Logger
    private let look: @Sendable () async throws -> Oldest?
    private let state = State()

    /// The watch's name among services.
    public var description: String { "transaction watch" }

    /// Makes a watch, with its metric.
    /// - Parameters:
    ///   - bound: an age above it is logged
    ///   - look: finds the oldest open transaction; nil for none. Called by one caller at a time.
    public init(
        interval: Duration = .seconds(10),
        bound: Duration = .seconds(60),
        registry: MetricsRegistry,
        logger: Logger,
        look: @escaping @Sendable () async throws -> Oldest?
    ) {
        self.interval = interval
        self.bound = bound
        self.logger = logger
        self.look = look
        let state = self.state
        registry.collector(
            "stockgate_database_oldest_transaction_seconds",
            help: "Age of the oldest open transaction that keeps dead rows of this server's database; none where it could not be read",
            kind: .gauge
        ) {
            state.age.withLock { $0 }.map { [.init($0)] } ?? []
        }
    }

    /// Looks until the server stops.
    public func run() async throws {
        try? await cancelWhenGracefulShutdown {
            var alarm = TransactionAlarm(bound: self.bound)
            // Ends by cancellation.
            while !Task.isCancelled {
                await round(&alarm)
                try await Task.sleep(for: interval)
            }
        }
    }

    private func round(_ alarm: inout TransactionAlarm) async {
        let oldest: Oldest?
        do {
            oldest = try await look()
        } catch {
            // The look failed, so the age is unknown. That the database is away is reported by those who need it.
            return state.age.withLock { $0 = nil }
        }
        state.age.withLock { $0 = (oldest?.age ?? .zero) / .seconds(1) }
        switch alarm.saw(oldest?.age) {
        case .tooOld:
            logger.warning(
                "a transaction has been open for too long: commits become slower until it ends; end it",
                metadata: ["seconds": "\(Int((oldest?.age ?? .zero) / .seconds(1)))", "who": "\(oldest?.who ?? "")"]
            )
        case .over: logger.notice("no transaction is open for too long any more")
        case nil: break
        }
    }
}
