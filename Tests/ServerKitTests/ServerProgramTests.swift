import Testing

@testable import ServerKit

/// What a server's program was called to do, as the words behind its name say.
struct ServerProgramTests {
    private let program = ServerProgram<ServerConfiguration>(
        name: "some-server",
        summary: "serves",
        read: { ServerConfiguration(from: &$0, publicPort: ("SOME_PORT", 1), adminPort: ("SOME_ADMIN_PORT", 2)) },
        server: { $0 },
        run: { _ in },
        commands: [.init(name: "check", summary: "checks, and ends with 3 if something is left", run: { _ in 3 })]
    )

    private func name(_ words: [String]) -> String {
        switch program.call(words) {
        case .serve: "serve"
        case .help: "help"
        case .command(let command): command.name
        case .refused(let why): why
        }
    }

    @Test func theWordsAreReadOrRefused() {
        #expect(name([]) == "serve")
        #expect(name(["check"]) == "check")
        #expect(name(["--help"]) == "help" && name(["check", "-h"]) == "help")
        // A server that starts although it was asked for something else would be a surprise.
        #expect(name(["chek"]) == "no such command: chek")
        #expect(name(["check", "twice"]) == "check takes no further words")
    }

    @Test func helpNamesTheCommands() {
        #expect(program.help.contains("some-server check\n      checks, and ends with 3"))
    }
}
