import FlashSaleKit
import Foundation
import NIOPosix

/// Where the settings come from.
enum Environment {
    private static let needed = ["PRODUCT_DATABASE_URL", "ORDER_DATABASE_URL", "REDIS_URL"]

    /// The script given, else the usual one, if it is there.
    static func script(_ path: String?) throws(PlanError) -> StackScript? {
        let given = path
        let path = path ?? "scripts/stack"
        if FileManager.default.isExecutableFile(atPath: path) { return StackScript(path: path) }
        if let given { throw PlanError("--stack: \(given) is no program") }
        return nil
    }

    /// The process's environment; what it lacks, from the script.
    static func read(stack: StackScript?) async throws -> [String: String] {
        let own = ProcessInfo.processInfo.environment
        if needed.allSatisfy({ own[$0] != nil }) { return own }
        guard let stack else { return own }
        return try await stack.environment().merging(own) { $1 }
    }

    /// The stores that the audit reads.
    static func source(_ environment: [String: String]) throws -> StoreReader {
        let missing = needed.filter { environment[$0] == nil }
        guard let products = environment[needed[0]], let orders = environment[needed[1]], let redis = environment[needed[2]] else {
            throw PlanError(
                "\(missing.joined(separator: ", ")) not set: the audit reads the stores itself. scripts/stack env prints the settings; "
                    + "--audit http asks the servers instead, --no-audit measures the load alone"
            )
        }
        return try StoreReader(
            productDatabase: products,
            orderDatabase: orders,
            redisURL: redis,
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton
        )
    }
}
