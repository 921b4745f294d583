/// Lets clients in as PostgreSQL does, and answers every simple query with the bytes that a script has for it. It stays open whatever it has said.
final class ScriptedServer: Sendable {
    typealias Message = WireEnd.Message

    private let server: LoopbackServer
    var port: Int { server.port }

    /// - Parameter script: the messages before `ReadyForQuery`, by the query's text
    init(_ script: @escaping @Sendable (String) -> [Message]) throws {
        server = try LoopbackServer { client in
            guard client.startup() != nil else { return }
            client.send([("R", [0, 0, 0, 0]), ("K", [0, 0, 0, 1, 0, 0, 0, 1]), Self.ready])
            while let (letter, text) = client.message(), letter == "Q" {
                client.send(script(String(decoding: text.dropLast(), as: UTF8.self)) + [Self.ready])
            }
        }
    }

    func stop() { server.stop() }

    static let complete: Message = ("C", Array("SELECT 0\0".utf8))
    private static let ready: Message = ("Z", Array("I".utf8))

    /// An error or a notice with these fields, by their letters (PostgreSQL documentation, "Error and Notice Message Fields").
    static func report(_ letter: Character, _ fields: [(Character, String)]) -> Message {
        (letter, fields.flatMap { Array(String($0).utf8) + Array($1.utf8) + [0] } + [0])
    }
}
