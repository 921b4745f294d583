import Foundation
import Logging
import Synchronization
import Testing

@testable import ServerKit

@Suite struct SecretFileTests {
    private final class Folder {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("stockgate-secrets-\(UUID().uuidString)")
        init() throws { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) }
        deinit { try? FileManager.default.removeItem(at: url) }

        func write(_ text: String, to name: String = "tokens") throws -> String {
            let file = url.appendingPathComponent(name)
            try text.write(to: file, atomically: true, encoding: .utf8)
            return file.path
        }
    }

    private func logged(_ rereadables: [any Rereadable]) -> String {
        let lines = Mutex("")
        let logger = Logger(label: "s") { label in
            ServerLogHandler(label: label, level: .info, format: .text) { line in
                lines.withLock { $0 += String(decoding: line, as: UTF8.self) }
            }
        }
        HangupWatch.reread(rereadables, logger)
        return lines.withLock { $0 }
    }

    @Test func tokensOfAFileChangeWithIt() throws {
        let folder = try Folder()
        let path = try folder.write("ann:first-1\n\n bob:second-2 \n")
        var reader = SettingsReader(environment: ["SERVICE_TOKENS_FILE": " \(path)".trimmingCharacters(in: .whitespaces)])
        let tokens = reader.serviceTokens(of: "services")
        try reader.finish()
        let files = reader.rereadables
        #expect(files.map(\.setting) == ["SERVICE_TOKENS_FILE"])
        let guardian = ServiceGuard(tokens: tokens)
        #expect(tokens.name(of: "first-1".utf8) == "ann" && tokens.name(of: "second-2".utf8) == "bob")
        #expect(logged(files).contains("changed=none unchanged=SERVICE_TOKENS_FILE"))
        // As an orchestrator does it: another file takes the name.
        _ = try folder.write("ann:third-3,bob:second-2")
        #expect(tokens.name(of: "third-3".utf8) == nil)
        #expect(logged(files).contains("changed=SERVICE_TOKENS_FILE unchanged=none"))
        #expect(tokens.name(of: "third-3".utf8) == "ann" && tokens.name(of: "first-1".utf8) == nil)
        #expect(tokens == AdminTokens("ann:third-3,bob:second-2"))
        // What cannot be used leaves the tokens in force: nobody is let in, and nobody locked out.
        for broken in ["", "ann:", "no spaces here", String(repeating: "x", count: 70_000)] {
            _ = try folder.write(broken)
            let log = logged(files)
            #expect(log.contains("error s: SIGHUP: this setting cannot be used") && log.contains("changed=none unchanged=none"), "\(log)")
            #expect(!log.contains("no spaces here"))
            #expect(tokens.name(of: "third-3".utf8) == "ann")
        }
        try FileManager.default.removeItem(atPath: path)
        #expect(logged(files).contains("cannot be opened"))
        #expect(tokens.name(of: "third-3".utf8) == "ann" && !tokens.isEmpty)
        _ = guardian
    }

    @Test func aFileThatCannotBeUsedIsRefusedAtTheStart() throws {
        let folder = try Folder()
        let empty = try folder.write("\n", to: "empty")
        for (environment, fault) in [
            (["ADMIN_TOKEN_FILE": "/nowhere/tokens"], "ADMIN_TOKEN_FILE: the file cannot be opened (No such file or directory)"),
            (["ADMIN_TOKEN_FILE": folder.url.path], "ADMIN_TOKEN_FILE: the file cannot be read (Is a directory)"),
            (["ADMIN_TOKEN_FILE": empty], "ADMIN_TOKEN_FILE: what is in the file cannot be what it is for"),
            (["ADMIN_TOKEN_FILE": empty, "ADMIN_TOKEN": "x"], "ADMIN_TOKEN and ADMIN_TOKEN_FILE are both set: one of them is enough"),
            (
                ["ADMIN_TOKEN": "a b"],
                "ADMIN_TOKEN must be a secret, or name:secret pairs separated by commas, of printable characters without spaces"
            ),
        ] {
            var reader = SettingsReader(environment: environment)
            _ = ServerConfiguration(from: &reader, publicPort: ("P", 1), adminPort: ("A", 2))
            let error = #expect(throws: SettingsError.self) { try reader.finish() }
            #expect(error?.faults.first == fault)
        }
    }

    @Test func aSecretInAVariableIsNeverReadAgain() throws {
        var reader = SettingsReader(environment: ["T": "one"])
        let secret = reader.secret("T", "", expected: "") { $0 }
        #expect(secret?.value == "one" && reader.rereadables.isEmpty)
        #expect(logged([]).contains("every other setting is read only at the start, and needs a restart"))
        let missing: Secret<String>? = reader.secret("U", "", expected: "") { $0 }
        #expect(missing == nil)
    }
}
