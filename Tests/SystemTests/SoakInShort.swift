import FlashSaleKit
import Foundation
import SoakKit
import Testing

extension Faults {
    @Suite("A soak in short", .serialized, .stackWithBroker(instances: 1), .timeLimit(.minutes(8)))
    struct SoakInShort {
        /// What `make soak` does for ten minutes: the books are exact, memory is flat, descriptors come back. Twenty seconds find a leak that is large.
        @Test func theServersHoldOut() async throws {
            let stack = try Stack.current
            let plan = try SoakPlan(seconds: 20, outageEvery: 10, peakSeconds: 3)
            let environment = try await stack.addresses().values
            let outcome = try await SoakRun(plan, stack: try Self.script(of: stack)) { print("SOAK", $0) }.run(environment)
            for line in outcome.lines { print("SOAK", line) }
            #expect(outcome.findings.isEmpty, "\(outcome.findings.joined(separator: "; "))")
            #expect(outcome.servers.map(\.server) == ["order-1", "product-1"])
            #expect(outcome.sale.faults.count == 2)
        }

        /// The stack's script with the stack's own settings, as a program that takes a verb and a server.
        private static func script(of stack: Stack) throws -> StackScript {
            let file = stack.folder.appendingPathComponent("own-stack")
            let settings = stack.environment.map { "export \($0.key)='\($0.value)'" }.sorted().joined(separator: "\n")
            try Data("#!/bin/sh\n\(settings)\nexec \"$STACK_SCRIPT\" \"$@\"\n".utf8).write(to: file)
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: file.path)
            return StackScript(path: file.path)
        }
    }
}
