import APIErrors
import Foundation
import StockContract
import Testing

/// What the two servers call things stands in one file each, so that they cannot disagree.
@Suite struct NamesTests {
    /// The source files, with what stands in them.
    private static let sources: [(file: String, content: String)] = {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let sources = root.appending(path: "Sources")
        let files = FileManager.default.enumerator(at: sources, includingPropertiesForKeys: nil)?.compactMap { $0 as? URL } ?? []
        return files.filter { $0.pathExtension == "swift" }.map { file in
            let name = String(file.path(percentEncoded: false).dropFirst(sources.path(percentEncoded: false).count))
            return (name, (try? String(contentsOf: file, encoding: .utf8)) ?? "")
        }
    }()

    /// The source files, with their texts in quotes.
    private static let literals: [(file: String, texts: Set<String>)] = {
        // Settings have names of the same form: the environment's LOCK_TIMEOUT is no error code.
        sources.filter { !$0.file.hasSuffix("Configuration.swift") }.map { file, text in
            var texts: Set<String> = []
            for line in text.split(separator: "\n") {
                let parts = line.split(separator: "\"", omittingEmptySubsequences: false)
                for index in parts.indices where index % 2 == 1 { texts.insert(String(parts[index])) }
                // In SQL, which is text of Swift itself.
                let quoted = line.split(separator: "'", omittingEmptySubsequences: false)
                for index in quoted.indices where index % 2 == 1 { texts.insert(String(quoted[index])) }
            }
            return (file, texts)
        }
    }()

    /// What the pattern's group is in each place of the sources where the pattern matches.
    private static func matches(of pattern: Regex<(Substring, Substring)>) -> [(file: String, text: String)] {
        sources.flatMap { file, content in content.matches(of: pattern).map { (file, String($0.1)) } }
    }

    private func files(with text: String) -> [String] { Self.literals.filter { $0.texts.contains(text) }.map(\.file).sorted() }

    @Test func theSourcesAreThere() {
        #expect(Self.literals.count > 100)
        #expect(Self.literals.contains { $0.file.hasSuffix("StockContract/StockGateTopology.swift") })
    }

    /// Every name that the servers and the broker share.
    private static let names: Set<String> = [
        StockGateTopology.commandsExchange, StockGateTopology.decreaseRoutingKey, StockGateTopology.decreaseQueue,
        StockGateTopology.asideQueue,
        StockGateTopology.resultsExchange, StockGateTopology.resultRoutingKey, StockGateTopology.resultsQueue,
        StockGateTopology.deadExchange, StockGateTopology.deadQueue, StockGateTopology.deadReasonHeader,
        StockGateTopology.orderEventsExchange, OrderEvent.Kind.created.rawValue, OrderEvent.Kind.confirmed.rawValue,
        OrderEvent.Kind.failed.rawValue, OrderEvent.Kind.cancelled.rawValue, StockGateTopology.anyOrderRoutingKey,
        StockGateTopology.orderEventsStream, StockCommand.type, StockResultMessage.type, StockBatch.path,
    ]

    @Test("no source but the contract's names an exchange, a queue, a routing key or a message's type")
    func topology() {
        for name in Self.names {
            let files = self.files(with: name)
            #expect(!files.isEmpty && files.allSatisfy { $0.contains("StockContract/") }, "\(name): \(files)")
        }
    }

    @Test("no text of another source, such as a metric's help, has such a name in it")
    func topologyInsideOfTexts() {
        // A name without a point may be a word of any sentence.
        for name in Self.names where name.contains(".") {
            let files = Self.literals.filter { $0.texts.contains { $0.contains(name) } }.map(\.file).sorted()
            #expect(files.allSatisfy { $0.contains("StockContract/") }, "\(name): \(files)")
        }
    }

    @Test("the list of names above has every text that the topology's file gives a name")
    func noNameIsForgotten() {
        let named = Self.matches(of: /static let \w+ = "([^"]+)"/).filter { $0.file.hasSuffix("/StockGateTopology.swift") }
        #expect(named.count >= 10)
        for (_, name) in named { #expect(Self.names.contains(name), "\(name)") }
    }

    @Test("every error code that a source makes stands in the list of the file that makes it")
    func noCodeIsForgotten() {
        let made = Self.matches(of: /(?:APIErrorCode|\.init)\(\s*"([A-Z0-9_]+)",\s*status:/)
        let lists = ["/ErrorCodes.swift": APIErrorCode.shop, "/APIErrorCode.swift": APIErrorCode.general]
        for (file, list) in lists {
            #expect(made.filter { $0.file.hasSuffix(file) }.map(\.text).sorted() == list.map(\.rawValue).sorted())
        }
        let elsewhere = made.filter { code in !lists.keys.contains { code.file.hasSuffix($0) } }
        #expect(elsewhere.isEmpty, "\(elsewhere)")
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
