import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import ServerMetrics
import NIOCore
import StrictJSON
import Testing

@testable import ServerKit

@Suite struct ServiceGuardTests {
    /// One caller: where it is, what it sends, and what it is told without tokens and with `order:5678`.
    private static let callers: [(peer: String?, fields: [String: String], without: String, with: String)] = [
        ("127.0.0.1", [:], "local", "UNAUTHORIZED"), ("::1", [:], "local", "UNAUTHORIZED"),
        ("::ffff:127.0.0.1", [:], "local", "UNAUTHORIZED"),
        ("10.0.0.1", [:], "FORBIDDEN", "UNAUTHORIZED"), ("::2", [:], "FORBIDDEN", "UNAUTHORIZED"), (nil, [:], "FORBIDDEN", "UNAUTHORIZED"),
        ("127.0.0.1", ["authorization": "Bearer 5678"], "local", "order"),
        ("10.0.0.1", ["authorization": "Bearer 5678"], "FORBIDDEN", "order"),
        ("10.0.0.1", ["authorization": "bearer 5678"], "FORBIDDEN", "order"),
        ("127.0.0.1", ["authorization": "Bearer 567"], "local", "FORBIDDEN"),
        ("127.0.0.1", ["authorization": "Bearer"], "local", "UNAUTHORIZED"),
        ("127.0.0.1", ["authorization": "Basic 5678"], "local", "UNAUTHORIZED"),
        // The gateway sits on the same machine, and passes on who asked.
        ("127.0.0.1", ["x-forwarded-for": "10.0.0.1"], "FORBIDDEN", "UNAUTHORIZED"),
        ("127.0.0.1", ["forwarded": "for=10.0.0.1"], "FORBIDDEN", "UNAUTHORIZED"),
        ("127.0.0.1", ["x-forwarded-for": "10.0.0.1", "authorization": "Bearer 5678"], "FORBIDDEN", "order"),
        ("127.0.0.1", ["host": "evil.example"], "FORBIDDEN", "UNAUTHORIZED"),
        ("127.0.0.1", ["origin": "http://evil.example"], "FORBIDDEN", "UNAUTHORIZED"),
        ("127.0.0.1", ["sec-fetch-site": "cross-site"], "FORBIDDEN", "UNAUTHORIZED"),
    ]

    @Test(arguments: callers)
    func whoMayChangeStock(peer: String?, fields: [String: String], without: String, with: String) throws {
        let peer = try peer.map { try SocketAddress(ipAddress: $0, port: 1) }
        let field = { (name: StaticString) in (["host": "localhost:8081"].merging(fields) { $1 })["\(name)"] }
        for (tokens, expected) in [(AdminTokens.none, without), (try #require(AdminTokens("order:5678,other:1")), with)] {
            let services = ServiceGuard(tokens: tokens)
            var found: String
            do {
                found = try services.caller(CallerClaims(peer: peer, field: field))
            } catch {
                found = error.code.rawValue
            }
            #expect(found == expected)
            // The hot path decides the same.
            var lines = fields.map { "\($0.key): \($0.value)\r\n" }.joined()
            if fields["host"] == nil { lines += "Host: localhost:8081\r\n" }
            guard case .head(var head) = RequestHead.read(ByteBuffer(string: "PATCH / HTTP/1.1\r\n\(lines)\r\n")) else { throw Unread() }
            head.isFromLoopback = peer?.isLoopback ?? false
            #expect(services.admits(head) == (expected == "local" || expected == "order"))
        }
    }

    /// The hot path tells 127.0.0.1 by its bytes: exactly as the router does by its text.
    @Test func aHostIsReadAlikeAsBytesAndAsText() throws {
        let hosts = [
            "127.0.0.1", "127.0.0.1:1", "127.0.0.1:8081", "127.0.0.1:65535", "127.0.0.1:00080", "127.0.0.1:0", "127.0.0.1:00000",
            "127.0.0.1:65536",
            "127.0.0.1:99999", "127.0.0.1:123456", "127.0.0.1:", "127.0.0.1.", "127.0.0.12", "127.0.0.1.evil.example", "127.0.0.1evil",
            "127.0.0.", "27.0.0.1",
            "1127.0.0.1", "localhost:80", "evil.example:80",
        ]
        var local = 0
        for host in hosts {
            switch RequestHead.read(ByteBuffer(string: "PATCH / HTTP/1.1\r\nHost: \(host)\r\n\r\n")) {
            case .head(var head):
                head.isFromLoopback = true
                let isLocal = CallerClaims.isLocal(host: host)
                #expect(ServiceGuard(tokens: .none).admits(head) == isLocal, "\(host)")
                #expect(head.isHost("127.0.0.1") == (isLocal && (host + ":").hasPrefix("127.0.0.1:")), "\(host)")
                local += isLocal ? 1 : 0
            case .refused: #expect(!CallerClaims.isLocal(host: host), "\(host)")
            case .partial: Issue.record("\(host): not read to its end")
            }
        }
        #expect(local >= 5)
    }

    private struct Unread: Error {}

    private func application(_ tokens: AdminTokens) -> some ApplicationProtocol {
        let router = ServerRouter(metrics: HTTPMetrics(registry: MetricsRegistry()))
        router.add(middleware: ServiceRouteGuard(ServiceGuard(tokens: tokens), openReads: ["/things", "/things/{id}"]))
        router.get("things") { _, context in "list \(context.actor ?? "-")" }
        router.get("things/{id}") { _, context in "thing \(context.actor ?? "-")" }
        router.post("things") { _, context in "made by \(context.actor ?? "-")" }
        router.get("things/{id}/ledger") { _, context in "ledger for \(context.actor ?? "-")" }
        return Application(responder: router.buildResponder(), configuration: .init(address: .hostname("127.0.0.1", port: 0)))
    }

    /// The body of a 200, else status and error code.
    private func ask(_ client: some TestClientProtocol, _ method: HTTPRequest.Method, _ path: String, _ secret: String? = nil) async throws
        -> String
    {
        var headers = HTTPFields()
        headers[.authorization] = secret.map { "Bearer \($0)" }
        let answer = try await client.execute(uri: path, method: method, headers: headers)
        guard answer.status != .ok else { return String(buffer: answer.body) }
        if answer.status == .unauthorized { #expect(answer.headers[.wwwAuthenticate] == "Bearer") }
        if method == .head { return "\(answer.status.code)" }
        guard case .string(let code)? = try JSONDocument(Array(answer.body.readableBytesView)).value["error"] else { return "no error" }
        return "\(answer.status.code) \(code)"
    }

    @Test func everythingButOpenReadsIsGuarded() async throws {
        try await application(#require(AdminTokens("order:5678"))).test(.live) { client in
            let cases: [(HTTPRequest.Method, String, String?, String)] = [
                (.get, "/things", nil, "list -"), (.head, "/things", nil, ""), (.get, "/things/7", nil, "thing -"),
                (.post, "/things", nil, "401 UNAUTHORIZED"), (.post, "/things", "1", "403 FORBIDDEN"),
                (.post, "/things", "5678", "made by order"),
                (.get, "/things/7/ledger", nil, "401 UNAUTHORIZED"), (.head, "/things/7/ledger", nil, "401"),
                (.get, "/things/7/ledger", "5678", "ledger for order"),
                // What there is not is said to everybody alike.
                (.get, "/nothing", nil, "404 NOT_FOUND"), (.delete, "/things", nil, "405 METHOD_NOT_ALLOWED"),
            ]
            for (method, path, secret, expected) in cases {
                let found = try await ask(client, method, path, secret)
                #expect(found == expected, "\(method) \(path) \(secret ?? "")")
            }
        }
    }

    @Test func withoutTokensThisMachineAloneAndNoProxy() async throws {
        let forwarded = try #require(HTTPField.Name("X-Forwarded-For"))
        try await application(.none).test(.live) { client in
            let direct = try await client.execute(uri: "/things", method: .post)
            #expect(direct.status == .ok && String(buffer: direct.body) == "made by local")
            for headers in [[forwarded: "10.0.0.1"], [.origin: "http://evil.example"], [.secFetchSite: "cross-site"]] as [HTTPFields] {
                let (write, read) = (
                    try await client.execute(uri: "/things", method: .post, headers: headers),
                    try await client.execute(uri: "/things", method: .get, headers: headers)
                )
                #expect(write.status == .forbidden && read.status == .ok, "\(headers)")
            }
        }
    }
}
