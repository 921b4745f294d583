import Foundation

/// The scripts and migrations that ship, read from the sources beside these tests.
enum ContractSources {
    static func text(_ path: String) throws -> String {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        return try String(contentsOf: root.appendingPathComponent("Sources/StockGate/" + path), encoding: .utf8)
    }
}
