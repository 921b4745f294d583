import FlashSaleKit
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix

/// Calls one server, one call at a time.
struct Client: Sendable {
    private let caller: HTTPCaller

    init(_ address: String, timeout: TimeAmount = .seconds(30)) async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        caller = try await HTTPCaller.make(endpoint: HTTPEndpoint(address), eventLoop: loop, timeout: timeout)
    }

    /// A whole answer with its JSON.
    struct Answer {
        var status: Int
        var text: String
        var json: [String: Any]

        var id: Int64? { (json["id"] as? NSNumber)?.int64Value }
        var error: String? { json["error"] as? String }
        /// Whether this is the error shape of the contract.
        var hasErrorShape: Bool { error != nil && json["message"] is String && json.keys.contains("details") }
    }

    func call(_ method: HTTPMethod, _ path: String, json: String? = nil, headers: [(String, String)] = []) async throws -> Answer {
        let answer = try await caller.call(method, path, json: json, headers: headers)
        let text = String(buffer: answer.body)
        let object = try? JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
        return Answer(status: answer.status, text: text, json: object ?? [:])
    }

    /// Orders under one key, again and again until the order is decided, as a buyer does: on a busy machine a deadline may pass first.
    func order(_ json: String, key: String) async throws -> Answer {
        var answer: Answer?
        try await until("the order of \(key) is decided") {
            let next = try await call(.POST, "/orders", json: json, headers: [("Idempotency-Key", key)])
            answer = next
            return ![409, 424, 503].contains(next.status)
        }
        guard let answer else { throw SystemFailure(description: "no answer to \(key)") }
        return answer
    }

    /// The sum of all samples of a metric on an admin port, of those with a label if one is given; 0 without one.
    func metric(_ name: String, where label: String = "") async throws -> Double {
        let text = try await call(.GET, "/metrics").text
        return text.split(separator: "\n").filter { line in
            line.hasPrefix(name) && (label.isEmpty || line.contains(label))
                && (line.dropFirst(name.count).first.map { $0 == " " || $0 == "{" } ?? false)
        }
        .reduce(0) { $0 + ($1.split(separator: " ").last.flatMap { Double($0) } ?? 0) }
    }

    /// The state of `redisStock` on a product server's admin port; nil while it does not answer.
    func breaker() async -> String? {
        guard let answer = try? await call(.GET, "/admin/circuitbreakers/redisStock"), answer.status == 200 else { return nil }
        return BreakerHistory.state(json: Data(answer.text.utf8))
    }

    func close() { caller.close() }
}
