import APIErrors
import Foundation
import StockContract
import Testing

/// What the two servers call things stands in one file each, so that they cannot disagree.
@Suite struct NamesTests {
    /// The source files, with their texts in quotes.
    private static let literals: [(file: String, texts: Set<String>)] = {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let sources = root.appending(path: "Sources")
        let files = FileManager.default.enumerator(at: sources, includingPropertiesForKeys: nil)?.compactMap { $0 as? URL } ?? []
        // Settings have names of the same form: the environment's LOCK_TIMEOUT is no error code.
        return files.filter { $0.pathExtension == "swift" && !$0.lastPathComponent.hasSuffix("Configuration.swift") }.map { file in
            let text = (try? String(contentsOf: file, encoding: .utf8)) ?? ""
            var texts: Set<String> = []
            for line in text.split(separator: "\n") {
                let parts = line.split(separator: "\"", omittingEmptySubsequences: false)
                for index in parts.indices where index % 2 == 1 { texts.insert(String(parts[index])) }
                // In SQL, which is text of Swift itself.
                let quoted = line.split(separator: "'", omittingEmptySubsequences: false)
                for index in quoted.indices where index % 2 == 1 { texts.insert(String(quoted[index])) }
            }
            return (String(file.path(percentEncoded: false).dropFirst(sources.path(percentEncoded: false).count)), texts)
        }
    }()

    private func files(with text: String) -> [String] { Self.literals.filter { $0.texts.contains(text) }.map(\.file).sorted() }

    @Test func theSourcesAreThere() {
        #expect(Self.literals.count > 100)
        #expect(Self.literals.contains { $0.file.hasSuffix("StockContract/StockGateTopology.swift") })
    }

    @Test("no source but the contract's names an exchange, a queue, a routing key or a message's type")
    func topology() {
        let names = [
            StockGateTopology.commandsExchange, StockGateTopology.decreaseRoutingKey, StockGateTopology.decreaseQueue,
            StockGateTopology.resultsExchange, StockGateTopology.resultRoutingKey, StockGateTopology.resultsQueue,
            StockGateTopology.deadExchange, StockGateTopology.deadQueue, StockGateTopology.deadReasonHeader,
            StockGateTopology.orderEventsExchange, StockGateTopology.orderCreatedRoutingKey, StockGateTopology.orderConfirmedRoutingKey,
            StockGateTopology.orderFailedRoutingKey, StockGateTopology.orderCancelledRoutingKey, StockGateTopology.anyOrderRoutingKey,
            StockGateTopology.orderEventsStream, StockCommand.type, StockResultMessage.type, StockBatch.path,
        ]
        for name in Set(names) {
            let files = self.files(with: name)
            #expect(!files.isEmpty && files.allSatisfy { $0.contains("StockContract/") }, "\(name): \(files)")
        }
    }

    @Test("an error code stands in one file: the shop's in the contract, everybody's in APIErrors")
    func codes() {
        for code in APIErrorCode.shop {
            #expect(self.files(with: code.rawValue).map { $0.split(separator: "/").last } == ["ErrorCodes.swift"], "\(code.rawValue)")
        }
        for code in APIErrorCode.general {
            #expect(self.files(with: code.rawValue).map { $0.split(separator: "/").last } == ["APIErrorCode.swift"], "\(code.rawValue)")
        }
    }
}
