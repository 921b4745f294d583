import HTTPTypes
import Hummingbird
import NIOCore
import Testing

@testable import ServerKit

@Suite struct AdminGuardTests {
    private func request(authority: String? = "localhost:9081", _ headers: HTTPFields = [:]) -> Request {
        Request(
            head: HTTPRequest(method: .post, scheme: "http", authority: authority, path: "/admin", headerFields: headers),
            body: .init(buffer: ByteBuffer())
        )
    }

    private func outcome(_ tokens: AdminTokens, _ request: Request, peer: String?) throws -> String {
        let peer = try peer.map { try SocketAddress(ipAddress: $0, port: 1) }
        do {
            return try AdminGuard(tokens: tokens).actor(of: request, peer: peer)
        } catch {
            return error.code.rawValue
        }
    }

    @Test(
        arguments: [
            ("127.0.0.1", "local"), ("127.9.9.9", "local"), ("::1", "local"), ("::ffff:127.0.0.1", "local"), ("10.0.0.1", "FORBIDDEN"),
            ("::2", "FORBIDDEN"),
            ("::ffff:10.0.0.1", "FORBIDDEN"), (nil, "FORBIDDEN"),
        ] as [(String?, String)]
    )
    func withoutTokenOnlyThisMachine(peer: String?, expected: String) throws {
        #expect(try outcome(.none, request(), peer: peer) == expected)
    }

    @Test func withoutTokenNoProxyNoOtherHostNoOtherOrigin() throws {
        let forwarded = try #require(HTTPField.Name("X-Forwarded-For"))
        #expect(try outcome(.none, request([forwarded: "10.0.0.1"]), peer: "127.0.0.1") == "FORBIDDEN")
        #expect(try outcome(.none, request(authority: "evil.example"), peer: "127.0.0.1") == "FORBIDDEN")
        #expect(try outcome(.none, request(authority: "127.evil.example"), peer: "127.0.0.1") == "FORBIDDEN")
        #expect(try outcome(.none, request([.origin: "http://evil.example"]), peer: "127.0.0.1") == "FORBIDDEN")
        #expect(try outcome(.none, request([.origin: "null"]), peer: "127.0.0.1") == "FORBIDDEN")
        #expect(try outcome(.none, request([.origin: "http://localhost:9081"]), peer: "127.0.0.1") == "local")
        #expect(try outcome(.none, request(authority: "[::1]:9081"), peer: "::1") == "local")
    }

    @Test(
        arguments: [
            (nil, "UNAUTHORIZED"), ("Basic abc", "UNAUTHORIZED"), ("Bearer", "UNAUTHORIZED"), ("Bearer wrong", "FORBIDDEN"),
            ("Bearer 12345", "FORBIDDEN"),
            ("Bearer 1234", "ann"), ("bearer 5678", "bob"),
        ] as [(String?, String)]
    )
    func withTokens(authorization: String?, expected: String) throws {
        let tokens = try #require(AdminTokens("ann:1234,bob:5678"))
        var headers = HTTPFields()
        headers[.authorization] = authorization
        #expect(try outcome(tokens, request(headers), peer: "10.0.0.1") == expected)
        #expect(try outcome(tokens, request(headers), peer: "127.0.0.1") == expected)
    }
}
