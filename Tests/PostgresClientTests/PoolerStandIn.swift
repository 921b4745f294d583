import Foundation

/// Answers connections as PgBouncer 1.18 does, in front of a real server.
///
/// It stands for the pooler in what a client sees of it at first: it refuses `options`, or, where it was told to ignore them, drops them and answers with a process id
/// of its own. Pooling itself it leaves out.
final class PoolerStandIn: Sendable {
    enum Options: Sendable { case refused, ignored, kept }

    private let server: LoopbackServer
    var port: Int { server.port }

    /// - Parameter server: the port of the server behind it, on loopback
    init(before server: Int, options: Options) throws {
        self.server = try LoopbackServer { Self.serve($0, server, options) }
    }

    func stop() { server.stop() }

    private static func serve(_ client: WireEnd, _ server: Int, _ options: Options) {
        guard let startup = client.startup() else { return }
        if options == .refused {
            let fields: [(Character, String)] = [
                ("S", "FATAL"), ("V", "FATAL"), ("C", "08P01"), ("M", "unsupported startup parameter: options"),
            ]
            return client.send([ScriptedServer.report("E", fields)])
        }
        guard let upstream = WireEnd.connected(to: server) else { return }
        defer { close(upstream.descriptor) }
        upstream.send(WireEnd.framed(options == .ignored ? withoutOptions(startup) : startup))
        // Until the client may send: BackendKeyData gets a process id that no server has.
        while true {
            guard var message = upstream.message() else { return }
            if message.letter == "K" { message.body.replaceSubrange(0..<4, with: [0x70, 0, 0, 1]) }
            client.send([message])
            if message.letter == "Z" || message.letter == "E" { break }
        }
        var ends = [client, upstream].map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
        while poll(&ends, 2, -1) > 0 {
            for (index, other) in [(0, upstream), (1, client)] where ends[index].revents != 0 {
                var bytes = [UInt8](repeating: 0, count: 4096)
                let count = read(ends[index].fd, &bytes, bytes.count)
                if count <= 0 { return }
                other.send(Array(bytes[..<count]))
            }
        }
    }

    /// A startup message has its version, and texts that end with zero in pairs.
    private static func withoutOptions(_ startup: [UInt8]) -> [UInt8] {
        let texts = startup.dropFirst(4).split(separator: 0, omittingEmptySubsequences: false).map { Array($0) }
        var body = Array(startup[..<4])
        for index in stride(from: 0, to: texts.count - 1, by: 2) where !texts[index].isEmpty && texts[index] != Array("options".utf8) {
            body += texts[index] + [0] + texts[index + 1] + [0]
        }
        return body + [0]
    }
}
