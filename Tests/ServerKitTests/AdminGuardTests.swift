import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import NIOCore
import Testing

@testable import ServerKit

@Suite struct AdminGuardTests {
    private func request(authority: String? = "localhost:9081", _ headers: HTTPFields = [:], method: HTTPRequest.Method = .post) -> Request
    {
        Request(
            head: HTTPRequest(method: method, scheme: "http", authority: authority, path: "/admin", headerFields: headers),
            body: .init(buffer: ByteBuffer())
        )
    }

    private func outcome(_ tokens: AdminTokens, _ request: Request, peer: String?) throws -> String {
        let peer = try peer.map { try SocketAddress(ipAddress: $0, port: 1) }
        do {
            return try AdminGuard(tokens: tokens).actor(of: CallerClaims(request, peer: peer))
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
            "localhost", "LOCALHOST:9081", "localhost:1", "127.0.0.1", "127.0.0.1:9081", "127.255.255.255:65535", "[::1]", "[::1]:9081",
        ]
    )
    func namesOfThisMachine(host: String) throws {
        #expect(try outcome(.none, request(authority: host), peer: "127.0.0.1") == "local")
    }

    @Test(
        arguments: [
            nil, "", "localhost.", "localhost.evil.example", "localhost.:9081", "localhost:", "localhost:0", "localhost:65536",
            "localhost:9081a",
            "localhost:9081:1", "localhost:+1", "localhost@evil.example", "evil.example", "evil.example:9081", "127.evil.example",
            "127.0.0.1.evil.example",
            "127.", "127.1", "127.0.0", "127.0.0.1.", "127.0.0.1.2", "127.0.0.256", "127.0.0.01", "127.0.0.+1", "127..0.1", "1270.0.0.1",
            "128.0.0.1",
            "10.0.0.1", "0.0.0.0", "[::1].evil.example", "[::1]evil.example", "[::1", "::1", "[::2]", "[::1]:", "[::1]:x",
            "[::ffff:127.0.0.1]", "[]",
        ] as [String?]
    )
    func otherNamesAreForeign(host: String?) throws {
        #expect(try outcome(.none, request(authority: host), peer: "127.0.0.1") == "FORBIDDEN")
    }

    /// What a page sends along: `Origin`, `Sec-Fetch-Site`, and whether it is this server's own page.
    private static let pages: [(origin: String?, site: String?, isOwn: Bool)] = [
        (nil, nil, true), (nil, "same-origin", true), (nil, "none", true), ("http://localhost:9081", "same-origin", true),
        ("http://localhost:9081", nil, true), ("https://localhost:9081", nil, true), ("HTTP://LocalHost:9081", nil, true),
        (nil, "cross-site", false), (nil, "same-site", false), (nil, "", false), (nil, "Same-Origin", false),
        (nil, "none, cross-site", false),
        ("null", nil, false), ("", nil, false), ("http://evil.example", nil, false), ("http://localhost", nil, false),
        ("http://localhost:9082", nil, false), ("http://localhost:9081.evil.example", nil, false),
        ("http://evil.example/localhost:9081", nil, false),
        ("localhost:9081", nil, false), ("chrome-extension://localhost:9081", nil, false),
        ("http://localhost:9081 http://evil.example", nil, false),
        ("http://localhost:9081", "cross-site", false), ("http://evil.example", "same-origin", false),
    ]

    @Test(arguments: pages) func pagesOfOthersAreRefused(origin: String?, site: String?, isOwn: Bool) throws {
        let site = try (#require(HTTPField.Name("Sec-Fetch-Site")), site)
        var headers: HTTPFields = [.authorization: "Bearer 1234"]
        headers[.origin] = origin
        headers[site.0] = site.1
        let tokens = try #require(AdminTokens("ann:1234"))
        for method in [HTTPRequest.Method.get, .post] {
            let request = request(headers, method: method)
            #expect(try outcome(.none, request, peer: "127.0.0.1") == (isOwn ? "local" : "FORBIDDEN"))
            // A token does not excuse the page.
            #expect(try outcome(tokens, request, peer: "10.0.0.1") == (isOwn ? "ann" : "FORBIDDEN"))
        }
    }

    @Test func aServiceOpensItsOwnRoutesAlone() throws {
        let services = AdminGuard.Services(tokens: try #require(AdminTokens("order:5678")), templates: ["/internal/stock/batch"])
        func actor(_ tokens: AdminTokens, _ secret: String?, template: String?, peer: String = "10.0.0.1") throws -> String {
            var headers = HTTPFields()
            headers[.authorization] = secret.map { "Bearer \($0)" }
            let claims = CallerClaims(request(headers), peer: try SocketAddress(ipAddress: peer, port: 1))
            do {
                return try AdminGuard(tokens: tokens, services: services).actor(of: claims, template: template)
            } catch {
                return error.code.rawValue
            }
        }
        let tokens = try #require(AdminTokens("ann:1234"))
        #expect(try actor(tokens, "5678", template: "/internal/stock/batch") == "order")
        #expect(try actor(tokens, "1234", template: "/internal/stock/batch") == "ann")
        #expect(try actor(tokens, "5678", template: "/metrics") == "FORBIDDEN")
        #expect(try actor(tokens, "5678", template: nil) == "FORBIDDEN")
        #expect(try actor(tokens, nil, template: "/internal/stock/batch") == "UNAUTHORIZED")
        // Without admin tokens the port is for this machine, and that route for services elsewhere, too.
        #expect(try actor(.none, "5678", template: "/internal/stock/batch") == "order")
        #expect(try actor(.none, "5678", template: "/metrics") == "FORBIDDEN")
        #expect(try actor(.none, nil, template: "/internal/stock/batch", peer: "127.0.0.1") == "local")
        #expect(try actor(.none, nil, template: "/internal/stock/batch") == "FORBIDDEN")
    }

    /// What a hot path admits is what the router would admit, for every kind of caller, but for those that the router has to look at closer.
    @Test func aHotPathAdmitsWhomTheRouterAdmits() throws {
        let services = AdminGuard.Services(tokens: try #require(AdminTokens("order:5678")), templates: ["/internal/stock/batch"])
        let secrets = [nil, "Bearer 5678", "bearer 5678", "Bearer 1234", "Bearer 567", "Bearer", "Basic 5678", ""]
        var admitted = 0
        for tokens in [AdminTokens.none, try #require(AdminTokens("ann:1234"))] {
            for given in [services, nil] {
                let gate = AdminGuard(tokens: tokens, services: given)
                for template in ["/internal/stock/batch", "/metrics"] {
                    for peer in ["127.0.0.1", "10.0.0.1"] {
                        for host in ["127.0.0.1:9081", "localhost", "evil.example", "127.0.0.1.evil.example"] {
                            for secret in secrets {
                                for page in [nil, "Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "X-Forwarded-For: 10.0.0.1"]
                                {
                                    let lines = [secret.map { "Authorization: \($0)" }, page].compactMap { $0 }
                                    let text = (["POST / HTTP/1.1", "Host: \(host)"] + lines).joined(separator: "\r\n") + "\r\n\r\n"
                                    guard case .head(var head) = RequestHead.read(ByteBuffer(string: text)) else {
                                        Issue.record("not read: \(text)")
                                        continue
                                    }
                                    let address = try SocketAddress(ipAddress: peer, port: 1)
                                    head.isFromLoopback = address.isLoopback
                                    let claims = CallerClaims(peer: address) { head.field($0) }
                                    let isPermitted = (try? gate.actor(of: claims, template: template)) != nil
                                    let isAdmitted = gate.admits(head, template: template)
                                    admitted += isAdmitted ? 1 : 0
                                    // Of who says where it comes from, and of malformed tokens where none is needed, the router is the judge.
                                    let isPlain = page == nil && (given != nil || !tokens.isEmpty || secret == nil)
                                    #expect(
                                        isAdmitted ? isPermitted : !isPermitted || !isPlain || template == "/metrics",
                                        "\(peer) \(text)"
                                    )
                                }
                            }
                        }
                    }
                }
            }
        }
        #expect(admitted > 50)
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
