import ArgumentParser
import Foundation
import PrivateServers

/// `fault-proxy`: makes the network in front of a server slow, silent or broken, from a terminal or a script.
@main
struct FaultProxyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fault-proxy",
        abstract: "A TCP proxy on loopback that makes a server slow, silent or broken.",
        discussion: """
            Reads commands from standard input, one a line, and answers each with a line: latency 200ms (of the answers), latency 10ms 200ms \
            (of requests and of answers), jitter 20ms and jitter 5ms 20ms (that much more at most, at random), bandwidth 100000 and bandwidth 100000 50000 \
            (bytes a second, 0 for no limit), stall, reset, reset 1000 (after 1000 more bytes to the server), refuse, heal, figures. \
            Ends when its input ends, or at quit.
            """
    )

    @Option(help: "Where to listen, such as 127.0.0.1:7000; port 0 takes a free one. Loopback only.")
    var listen = "127.0.0.1:0"

    @Option(help: "The server, such as 127.0.0.1:6379.")
    var to: String

    @Option(help: "How long to delay answers from the start, such as 200ms.")
    var latency = "0ms"

    func run() async throws {
        // When the reader of the output has gone away, writing fails with an error instead of ending the process.
        signal(SIGPIPE, SIG_IGN)
        let listener = try Self.address(listen, "--listen")
        guard listener.host == "127.0.0.1" || listener.host == "localhost" else { throw ValidationError("--listen: loopback only") }
        let server = try Self.address(to, "--to")
        guard let latency = Self.duration(latency[...]) else { throw ValidationError("--latency: a time such as 200ms") }
        let proxy = try await FaultProxy.start(to: server.port, host: server.host, port: listener.port)
        try await proxy.delay(toClient: latency)
        Self.say("listening on 127.0.0.1:\(proxy.port)")
        for await line in Self.lines() {
            let words = line.split(separator: " ")
            guard let command = words.first else { continue }
            if command == "quit" { break }
            do {
                Self.say(try await Self.perform(command, Array(words.dropFirst()), on: proxy) ?? "unknown: \(line)")
            } catch {
                Self.say("failed: \(line): \(error)")
            }
        }
        try await proxy.shutdown()
    }

    /// The lines of standard input, read on a thread of their own: reading waits.
    private static func lines() -> AsyncStream<String> {
        // A script sends a few commands. Of more than 1,024 that wait, the newest are dropped.
        let (lines, continuation) = AsyncStream<String>.makeStream(bufferingPolicy: .bufferingOldest(1_024))
        Thread.detachNewThread {
            while let line = readLine() { continuation.yield(line) }
            continuation.finish()
        }
        return lines
    }

    /// Carries out a command line. Returns its answer; nil for a line that is not understood.
    private static func perform(_ command: Substring, _ arguments: [Substring], on proxy: FaultProxy) async throws -> String? {
        switch (command, arguments.count) {
        case ("latency", 1...2):
            let times = arguments.compactMap { duration($0) }
            guard times.count == arguments.count, let toClient = times.last else { return nil }
            try await proxy.delay(toServer: times.count == 2 ? times[0] : .zero, toClient: toClient)
        case ("jitter", 1...2):
            let times = arguments.compactMap { duration($0) }
            guard times.count == arguments.count, let toClient = times.last else { return nil }
            try await proxy.jitter(toServer: times.count == 2 ? times[0] : .zero, toClient: toClient)
        case ("bandwidth", 1...2):
            let rates = arguments.compactMap { Int($0) }
            guard rates.count == arguments.count, rates.allSatisfy({ $0 >= 0 }), let toClient = rates.last else { return nil }
            try await proxy.limit(toServer: rates.count == 2 ? rates[0] : nil, toClient: toClient)
        case ("stall", 0): try await proxy.stall()
        case ("reset", 0): try await proxy.reset()
        case ("reset", 1):
            guard let count = Int(arguments[0]), count >= 0 else { return nil }
            try await proxy.reset(afterBytes: count, .toServer)
        case ("refuse", 0): try await proxy.refuse()
        case ("heal", 0): try await proxy.heal()
        case ("figures", 0):
            let figures = try await proxy.snapshot()
            return "connections \(figures.connections), accepted \(figures.accepted), reset \(figures.reset), "
                + "bytes to the server \(figures.bytesToServer), to clients \(figures.bytesToClient), held \(figures.bytesHeld)"
        default: return nil
        }
        return "done: \(([command] + arguments).joined(separator: " "))"
    }

    /// A whole number of `ms` or `s`, at most an hour.
    static func duration(_ text: Substring) -> Duration? {
        for (unit, milliseconds) in [("ms", 1), ("s", 1_000)] where text.hasSuffix(unit) {
            guard let count = Int(text.dropLast(unit.count)), count >= 0, count <= 3_600_000 / milliseconds else { return nil }
            return .milliseconds(count * milliseconds)
        }
        return nil
    }

    private static func address(_ text: String, _ option: String) throws -> (host: String, port: Int) {
        let parts = text.split(separator: ":")
        guard parts.count == 2, let port = Int(parts[1]), (0...65_535).contains(port) else {
            throw ValidationError("\(option): an address such as 127.0.0.1:6379")
        }
        return (String(parts[0]), port)
    }

    private static func say(_ line: String) { FileHandle.standardOutput.write(Data("\(line)\n".utf8)) }
}
