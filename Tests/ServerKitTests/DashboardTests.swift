import HTTPTypes
import Hummingbird
import HummingbirdTesting
import ServerMetrics
import NIOCore
import Testing

@testable import ServerKit

@Suite struct DashboardTests {
    private func application(_ tokens: AdminTokens) -> some ApplicationProtocol {
        let metrics = MetricsRegistry()
        let router = ServerAssembly.adminRouter(metrics: HTTPMetrics(registry: metrics), registry: metrics, tokens: tokens)
        return Application(responder: router.buildResponder(), configuration: .init(address: .hostname("127.0.0.1", port: 0)))
    }

    private func expect(
        _ status: HTTPResponse.Status,
        _ client: some TestClientProtocol,
        _ path: String,
        method: HTTPRequest.Method = .get,
        headers: HTTPFields = [:],
        _ location: SourceLocation = #_sourceLocation
    ) async throws {
        let answer = try await client.execute(uri: path, method: method, headers: headers)
        #expect(answer.status == status, sourceLocation: location)
    }

    /// The nonce of a policy's directive.
    private func nonce(_ directive: String, in policy: String) -> String? {
        guard let start = policy.firstRange(of: "\(directive) 'nonce-")?.upperBound else { return nil }
        return String(policy[start...].prefix { $0 != "'" })
    }

    @Test func thePageNeedsNoTokenAndEverythingElseDoes() async throws {
        try await application(#require(AdminTokens("ann:1234"))).test(.router) { client in
            let page = try await client.execute(uri: "/dashboard", method: .get)
            #expect(page.status == .ok)
            #expect(page.headers[.contentType] == "text/html; charset=utf-8")
            #expect(page.headers[.cacheControl] == "no-store")
            try await expect(.unauthorized, client, "/metrics")
            try await expect(.ok, client, "/metrics", headers: [.authorization: "Bearer 1234"])
            try await expect(.unauthorized, client, "/dashboard", method: .post)
        }
    }

    @Test func withoutTokensThePageIsForThisMachineAlone() async throws {
        // Through the router alone a request has no peer.
        try await application(.none).test(.router) { client in
            try await expect(.forbidden, client, "/dashboard")
        }
        let forwarded = try #require(HTTPField.Name("X-Forwarded-For"))
        try await application(.none).test(.live) { client in
            try await expect(.ok, client, "/dashboard")
            try await expect(.forbidden, client, "/dashboard", headers: [forwarded: "10.0.0.1"])
            try await expect(.forbidden, client, "/dashboard", headers: [.origin: "http://evil.example"])
        }
    }

    /// What browsers send for a typed address, a link elsewhere, a frame, a script of another page, and the page's own requests.
    @Test(arguments: [AdminTokens.none, AdminTokens("ann:1234")])
    func aLinkOpensThePageAndNothingElseOfAnotherPageDoes(tokens: AdminTokens?) async throws {
        let tokens = try #require(tokens)
        try await application(tokens).test(.live) { client in
            func ask(_ status: HTTPResponse.Status, _ path: String, _ site: String, mode: String, dest: String, origin: String? = nil)
                async throws
            {
                var headers: HTTPFields = [
                    .authorization: "Bearer 1234", .secFetchSite: site, .secFetchMode: mode, .secFetchDest: dest,
                ]
                headers[.origin] = origin
                try await expect(status, client, path, headers: headers)
            }
            try await ask(.ok, "/dashboard", "none", mode: "navigate", dest: "document")
            try await ask(.ok, "/dashboard", "cross-site", mode: "navigate", dest: "document")
            try await ask(.ok, "/dashboard", "same-site", mode: "navigate", dest: "document")
            try await ask(.ok, "/metrics", "same-origin", mode: "cors", dest: "empty")
            try await ask(.forbidden, "/dashboard", "cross-site", mode: "navigate", dest: "iframe")
            try await ask(.forbidden, "/dashboard", "cross-site", mode: "no-cors", dest: "script")
            try await ask(.forbidden, "/dashboard", "cross-site", mode: "cors", dest: "empty", origin: "http://evil.example")
            try await ask(.forbidden, "/dashboard", "cross-site", mode: "navigate", dest: "document", origin: "http://evil.example")
            // Figures are for the page's own requests.
            try await ask(.forbidden, "/metrics", "cross-site", mode: "navigate", dest: "document")
            try await ask(.forbidden, "/metrics", "same-site", mode: "no-cors", dest: "image")
        }
    }

    @Test func thePolicyLetsNothingRunButThePage() async throws {
        try await application(#require(AdminTokens("1234"))).test(.router) { client in
            var nonces: Set<String> = []
            for _ in 0..<8 {
                let page = try await client.execute(uri: "/dashboard", method: .get)
                let policy = try #require(page.headers[.contentSecurityPolicy])
                let nonce = try #require(self.nonce("script-src", in: policy))
                nonces.insert(nonce)
                #expect(self.nonce("style-src", in: policy) == nonce)
                #expect(nonce.utf8.count == 32)
                for directive in [
                    "default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
                ] {
                    #expect(policy.contains(directive))
                }
                #expect(!policy.contains("unsafe"))
                let document = String(buffer: page.body)
                #expect(document.contains("<script nonce=\"\(nonce)\">"))
                #expect(document.contains("<style nonce=\"\(nonce)\">"))
                #expect(!document.contains("{{"))
            }
            #expect(nonces.count == 8)
        }
    }

    @Test func thePageIsSelfContainedAndWritesTextOnly() throws {
        let document = String(decoding: PackageResources.dashboard_html, as: UTF8.self)
        #expect(document.hasPrefix("<!doctype html>"))
        // An address that is a name, not something to load.
        let addresses = document.replacing("http://www.w3.org/2000/svg", with: "")
        for loaded in ["http://", "https://", "src=", "@import", "url("] { #expect(!addresses.contains(loaded), "\(loaded)") }
        for unsafe in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", " style=\"", " onclick="] {
            #expect(!document.contains(unsafe), "\(unsafe)")
        }
    }

    /// The page asks for paths of the port; one that is renamed would leave it blank.
    @Test func thePageAsksForWhatThePortServes() throws {
        let document = String(decoding: PackageResources.dashboard_html, as: UTF8.self)
        for path in [
            "\"/metrics\"", "\"/admin/circuitbreakers\"", "\"/admin/circuitbreakerevents?follow=true\"", "`/admin/audit/products/$",
        ] {
            #expect(document.contains(path), "\(path)")
        }
    }
}
