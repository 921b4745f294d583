import Glibc
import Logging

/// A program that is one server: its help, the reading of its settings, its log, and its exit status.
public struct ServerProgram<Configuration: Sendable>: Sendable {
    /// The program's name.
    public let name: String
    private let summary: String
    private let read: @Sendable (inout SettingsReader) throws -> Configuration
    private let server: @Sendable (Configuration) -> ServerConfiguration
    private let run: @Sendable (Configuration) async throws -> Void
    private let commands: [Command]

    /// What the program does instead of serving when its only argument is the command's name.
    public struct Command: Sendable {
        let name: String
        let summary: String
        let run: @Sendable (Configuration) async throws -> Int32

        /// Describes a command.
        /// - Parameters:
        ///   - summary: what it does and which exit status says what, in one line for `--help`
        ///   - run: does it, with the same settings as the server. It returns the process's exit status, 0 or above 2; if it throws, the status is 1.
        public init(name: String, summary: String, run: @escaping @Sendable (Configuration) async throws -> Int32) {
            self.name = name
            self.summary = summary
            self.run = run
        }
    }

    /// Describes a program.
    /// - Parameters:
    ///   - summary: what it is, in one line for `--help`
    ///   - read: reads its settings; throws an error that names every setting that cannot be read
    ///   - server: the settings that all servers have
    ///   - run: runs until SIGTERM or SIGINT
    ///   - commands: what else it does
    public init(
        name: String,
        summary: String,
        read: @escaping @Sendable (inout SettingsReader) throws -> Configuration,
        server: @escaping @Sendable (Configuration) -> ServerConfiguration,
        run: @escaping @Sendable (Configuration) async throws -> Void,
        commands: [Command] = []
    ) {
        self.name = name
        self.summary = summary
        self.read = read
        self.server = server
        self.run = run
        self.commands = commands
    }

    /// The text of `--help`: every setting with its default, and the commands.
    public var help: String {
        var reader = SettingsReader(environment: [:])
        // The values do not matter here, only the declarations that the reader has seen.
        _ = try? read(&reader)
        let help = reader.help(program: name, summary: summary)
        guard !commands.isEmpty else { return help }
        return help + "\n\nInstead of serving:\n\n" + commands.map { "  \(name) \($0.name)\n      \($0.summary)" }.joined(separator: "\n")
    }

    /// What a program was called to do.
    enum Call: Sendable {
        case serve
        case help
        case command(Command)
        /// The words cannot be understood; the text says why.
        case refused(String)
    }

    /// Reads the words after the program's name.
    func call(_ words: some Collection<String>) -> Call {
        if words.contains(where: { $0 == "--help" || $0 == "-h" }) { return .help }
        guard let word = words.first else { return .serve }
        guard let command = commands.first(where: { $0.name == word }) else { return .refused("no such command: \(word)") }
        return words.count == 1 ? .command(command) : .refused("\(word) takes no further words")
    }

    /// Reads the environment, runs, and ends the process: with status 1 if that fails, with status 2 if the words after the program's name make no sense.
    public func main() async {
        let command: Command?
        switch call(CommandLine.arguments.dropFirst()) {
        case .help: return print(help)
        case .refused(let why):
            ServerLogHandler.writeToStandardError(Array("\(name): \(why)\n".utf8))
            exit(2)
        case .command(let called): command = called
        case .serve: command = nil
        }
        HangupWatch.outlive()
        do {
            var reader = SettingsReader()
            let configuration = try read(&reader)
            let server = self.server(configuration)
            ServerLogHandler.bootstrap(level: server.logLevel, format: server.logFormat)
            Logger(label: name).info("starting", metadata: ["settings": "\(reader.givenText)"])
            for warning in reader.warnings { Logger(label: name).warning("\(warning)") }
            guard let command else { return try await run(configuration) }
            let status = try await command.run(configuration)
            if status != 0 { exit(status) }
        } catch {
            ServerLogHandler.writeToStandardError(Array(Redaction.masked("\(name): \(error)\n").utf8))
            exit(1)
        }
    }
}
