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

    /// Describes a program.
    /// - Parameters:
    ///   - summary: what it is, in one line for `--help`
    ///   - read: reads its settings; throws what names every one that cannot be read
    ///   - server: the settings that all servers have
    ///   - run: runs until SIGTERM or SIGINT
    public init(
        name: String,
        summary: String,
        read: @escaping @Sendable (inout SettingsReader) throws -> Configuration,
        server: @escaping @Sendable (Configuration) -> ServerConfiguration,
        run: @escaping @Sendable (Configuration) async throws -> Void
    ) {
        self.name = name
        self.summary = summary
        self.read = read
        self.server = server
        self.run = run
    }

    /// The text of `--help`: every setting with its default.
    public var help: String {
        var reader = SettingsReader(environment: [:])
        // Only what the reader has been asked for matters here.
        _ = try? read(&reader)
        return reader.help(program: name, summary: self.summary)
    }

    /// Reads the environment, runs, and ends the process with status 1 if that fails.
    public func main() async {
        if CommandLine.arguments.dropFirst().contains(where: { $0 == "--help" || $0 == "-h" }) { return print(help) }
        HangupWatch.outlive()
        do {
            var reader = SettingsReader()
            let configuration = try read(&reader)
            let server = self.server(configuration)
            ServerLogHandler.bootstrap(level: server.logLevel, format: server.logFormat)
            Logger(label: name).info("starting", metadata: ["settings": "\(reader.givenText)"])
            for warning in reader.warnings { Logger(label: name).warning("\(warning)") }
            try await run(configuration)
        } catch {
            ServerLogHandler.writeToStandardError(Array(Redaction.masked("\(name): \(error)\n").utf8))
            exit(1)
        }
    }
}
