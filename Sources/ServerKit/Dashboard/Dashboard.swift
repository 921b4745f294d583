import APIErrors
import HTTPTypes
public import Hummingbird
import NIOCore

/// The operator's page on the admin port: one document that asks the port's other routes for its figures.
///
/// The document itself holds neither figures nor secrets. Without tokens it is for this machine alone, as everything on the port is.
/// With tokens anyone who reaches the port gets the document, since a browser has no way to send a token before it has a page;
/// the page then asks for the token and sends it with each request, and those are guarded.
public struct Dashboard: Sendable {
    /// What stands in the document where the nonce goes.
    private static let nonceMark = "{{nonce}}"

    private let tokens: AdminTokens
    /// The document, cut at every place of the nonce.
    private let parts: [String]

    /// Makes the page.
    /// - Parameter tokens: those of the port's ``AdminGuard``
    public init(tokens: AdminTokens) {
        self.tokens = tokens
        var parts: [String] = []
        var rest = String(decoding: PackageResources.dashboard_html, as: UTF8.self)[...]
        while let mark = rest.firstRange(of: Dashboard.nonceMark) {
            parts.append(String(rest[..<mark.lowerBound]))
            rest = rest[mark.upperBound...]
        }
        self.parts = parts + [String(rest)]
    }

    /// Adds `GET /dashboard`, in front of the guard.
    public func register(on router: some RouterMethods<ServerRequestContext>) {
        router.get("dashboard") { request, context -> Response in
            let claims = CallerClaims(request, peer: context.channel.remoteAddress)
            // A link to the page, in another page or in a chat, only opens it: that page cannot read or frame this one, and this one's own requests
            // come from its own origin.
            if claims.isFromForeignPage, !Dashboard.isNavigation(request) { throw APIError(.forbidden) }
            if tokens.isEmpty, !claims.isFromThisMachine { throw APIError(.forbidden) }
            return page()
        }
    }

    /// Whether a browser opens the page in a window of its own, because somebody followed a link.
    private static func isNavigation(_ request: Request) -> Bool {
        request.headers[.origin] == nil && request.headers[.secFetchMode] == "navigate" && request.headers[.secFetchDest] == "document"
    }

    /// The document under a nonce of its own: no script and no style but the document's runs in it, and it talks to this server alone.
    private func page() -> Response {
        var random = SystemRandomNumberGenerator()
        let nonce = (0..<2).map { _ in
            let word = String(random.next(), radix: 16)
            return String(repeating: "0", count: 16 - word.count) + word
        }.joined()
        let policy = [
            "default-src 'none'", "script-src 'nonce-\(nonce)'", "style-src 'nonce-\(nonce)'", "connect-src 'self'", "img-src data:",
            "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
        ].joined(separator: "; ")
        var headers: HTTPFields = [.contentType: "text/html; charset=utf-8", .cacheControl: "no-store", .contentSecurityPolicy: policy]
        for (name, value) in [("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer")] {
            if let name = HTTPField.Name(name) { headers[name] = value }
        }
        return Response(
            status: .ok,
            headers: headers,
            body: .init(byteBuffer: ByteBuffer(string: parts.joined(separator: nonce)))
        )
    }
}
