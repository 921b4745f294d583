// The HTTP answers for the engine's answers. No other file of this server maps them.

import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import Logging
import PostgresClient
import ServerKit
import StockContract
import StockGate
import StrictJSON

extension APIError {
    /// The error for a request that was not decided.
    init(_ why: Unavailable) {
        switch why {
        case .overloaded: self.init(.overloaded, retryAfter: .seconds(1))
        case .lockTimeout: self.init(.lockTimeout, retryAfter: .seconds(1))
        case .noAnswer, .ledgerDown: self.init(.unavailable, retryAfter: .seconds(1))
        }
    }

    /// The error for trouble of PostgreSQL that may be over when the caller asks again, or when an operator has helped; nil for a fault of the statement, for which
    /// this server is to blame.
    init?(_ error: PostgresError) {
        switch error.code {
        case .poolExhausted: self.init(.overloaded)
        case .shutDown, .cancelled: self.init(.unavailable)
        default:
            guard error.isTransient || error.isDatabaseTrouble else { return nil }
            // `lock_not_available`
            self.init(error.sqlState == "55P03" ? .lockTimeout : .unavailable)
        }
    }

    /// The product is discontinued.
    static var notOnSale: APIError {
        APIError(.invalidState, message: .discontinued, details: ["status": "DISCONTINUED"])
    }
}

/// Answers requests for which PostgreSQL had no answer.
struct DatabaseTrouble: RouterMiddleware {
    private let log = LogThrottle()

    func handle(
        _ request: Request,
        context: ServerRequestContext,
        next: (Request, ServerRequestContext) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch let error as PostgresError {
            guard let answer = APIError(error) else { throw error }
            log.log(.warning, "the database gave no answer", to: context.logger, metadata: ["error": "\(error)"])
            throw answer
        }
    }
}

/// The content of a successful answer to a change of stock.
struct StockResult: Sendable {
    var remaining: Int64
    var message: String
    var isReplayed: Bool
}

extension DecreaseAnswer {
    /// The result of the decrease, or the error that says why there is none.
    func result() throws(APIError) -> StockResult {
        switch self {
        case .sold(let remaining, let replayed): return StockResult(remaining: remaining, message: "OK", isReplayed: replayed)
        case .insufficient(let remaining): throw APIError(.insufficientStock, details: ["remainingStock": .int(remaining)])
        case .keyClosed: throw APIError(.keyClosed)
        case .keyReused: throw APIError(.keyReused)
        case .notOnSale: throw .notOnSale
        case .productMissing: throw APIError(.productNotFound)
        case .unavailable(let why): throw APIError(why)
        }
    }
}

extension IncreaseAnswer {
    /// The result of the increase, or the error that says why there is none.
    func result() throws(APIError) -> StockResult {
        switch self {
        case .added(_, let remaining, let replayed): return StockResult(remaining: remaining, message: "OK", isReplayed: replayed)
        case .nothingToReturn(let remaining, let replayed):
            return StockResult(remaining: remaining, message: "NOTHING_TO_RETURN", isReplayed: replayed)
        case .keyReused: throw APIError(.keyReused)
        case .productMissing: throw APIError(.productNotFound)
        case .unavailable(let why): throw APIError(why)
        }
    }
}

extension StockResult {
    /// A 200 with the contract's body. A header says if it is a replay.
    func response() -> Response {
        var headers = HTTPFields()
        if isReplayed { headers[.idempotencyReplayed] = "true" }
        return .json(headers: headers) { write(&$0) }
    }

    func write(_ json: inout JSONWriter) {
        json.object { json in
            json.member("success", true)
            json.member("remainingStock", remaining)
            json.member("message", message)
        }
    }
}

extension Product {
    /// Writes the body that the contract prescribes.
    func write(_ json: inout JSONWriter) {
        json.object { json in
            json.member("id", id)
            json.member("code", code)
            json.member("name", name)
            json.member("price", price)
            json.member("stock", stock)
            json.member("status", status.rawValue)
            json.member("stockStrategy", stockStrategy.rawValue)
            json.member("createdAt", createdAt)
            json.member("updatedAt", updatedAt)
        }
    }
}
