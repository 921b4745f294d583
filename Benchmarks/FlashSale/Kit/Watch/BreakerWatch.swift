import Foundation
import NIOCore
import NIOHTTP1

/// Looks at the product server's breaker four times a second, and at its events twice.
///
/// Without an admin address, or while it does not answer, the state is unknown and nothing else suffers.
struct BreakerWatch: Sendable {
    private let caller: HTTPCaller?
    private let headers: [(String, String)]
    private let log: SaleLog

    static func make(_ settings: SaleConfiguration, eventLoop: any EventLoop, log: SaleLog) async throws -> BreakerWatch {
        guard let url = settings.productAdmin else { return BreakerWatch(caller: nil, headers: [], log: log) }
        let endpoint = try HTTPEndpoint(url, tls: settings.tls)
        let headers = settings.adminToken.map { [("Authorization", "Bearer \($0)")] } ?? []
        let caller = try await HTTPCaller.make(endpoint: endpoint, eventLoop: eventLoop, timeout: .seconds(1))
        return BreakerWatch(caller: caller, headers: headers, log: log)
    }

    private init(caller: HTTPCaller?, headers: [(String, String)], log: SaleLog) {
        self.caller = caller
        self.headers = headers
        self.log = log
    }

    /// Looks until cancelled.
    func run() async {
        var turn = 0
        while !Task.isCancelled {
            await look(withEvents: turn % 2 == 0)
            turn += 1
            try? await Task.sleep(for: .milliseconds(250))
        }
        caller?.close()
    }

    /// Reads events and state once.
    func look(withEvents: Bool) async {
        guard let caller else { return }
        // Events before the state: a state that was looked at first could be older than what the events tell.
        if withEvents, let answer = try? await caller.call(.GET, "/admin/circuitbreakerevents", headers: headers), answer.status == 200 {
            log.learn(BreakerHistory.events(json: Data(answer.body.readableBytesView)))
        }
        let answer = try? await caller.call(.GET, "/admin/circuitbreakers", headers: headers)
        log.look(answer.flatMap { $0.status == 200 ? BreakerHistory.state(json: Data($0.body.readableBytesView)) : nil })
    }
}

extension BreakerTransition {
    /// The transition as the story tells it.
    var sentence: String {
        "breaker \(from) -> \(to)" + (reason.map { ": \($0)" } ?? "") + (inferred ? " (seen between two looks)" : "")
    }
}
