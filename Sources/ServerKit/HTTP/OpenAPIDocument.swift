import HTTPTypes
public import Hummingbird
import NIOCore
public import StrictJSON

/// A server's OpenAPI 3.1 document: served at `/openapi.json`, and what the routes are compared to.
public struct OpenAPIDocument: Sendable {
    private let bytes: [UInt8]

    /// Takes the document's bytes.
    public init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Adds `GET /openapi.json`.
    public func register(on router: some RouterMethods<ServerRequestContext>) {
        let body = ByteBuffer(bytes: bytes)
        router.get("openapi.json") { _, _ in
            Response(status: .ok, headers: [.contentType: "application/json"], body: .init(byteBuffer: body))
        }
    }

    /// `GET /products/{id}` of every operation in the document, in order.
    /// - Throws: ``JSONSyntaxError`` if the document is no JSON
    public func operations() throws(JSONSyntaxError) -> [String] {
        guard case .object(let paths)? = try JSONDocument(bytes).value["paths"] else { return [] }
        let methods: Set<String> = ["get", "put", "post", "delete", "options", "head", "patch", "trace"]
        var operations: [String] = []
        for path in paths {
            guard case .object(let members) = path.value else { continue }
            for member in members where methods.contains(member.name) {
                operations.append("\(member.name.uppercased()) \(path.name)")
            }
        }
        return operations
    }

    /// The routes that the document does not have, as `GET /products/{id}`. The names of parameters count.
    public func undocumentedRoutes(of routes: [ServerRoute]) throws(JSONSyntaxError) -> [String] {
        let documented = Set(try operations())
        return routes.map { "\($0.method.rawValue) \($0.path.description)" }.filter { !documented.contains($0) }
    }

    /// The document's operations that no route serves.
    public func unservedOperations(of routes: [ServerRoute]) throws(JSONSyntaxError) -> [String] {
        let served = Set(routes.map { "\($0.method.rawValue) \($0.path.description)" })
        return try operations().filter { !served.contains($0) }
    }

    /// A line for every route whose query parameters are not those that the document gives its operation.
    public func queryParameterDifferences(of routes: [ServerRoute]) throws(JSONSyntaxError) -> [String] {
        let document = try JSONDocument(bytes).value
        return routes.compactMap { route in
            let path = document["paths"]?[route.path.description]
            let operation = path?[route.method.rawValue.lowercased()]
            let documented = (queryParameters(of: path, in: document) + queryParameters(of: operation, in: document)).sorted()
            let declared = route.query.sorted()
            if documented == declared { return nil }
            return "\(route.method.rawValue) \(route.path.description): the document has \(documented), the route \(declared)"
        }
    }

    private func queryParameters(of holder: JSONValue?, in document: JSONValue) -> [String] {
        guard case .array(let parameters)? = holder?["parameters"] else { return [] }
        let prefix = "#/components/parameters/"
        return parameters.compactMap { parameter in
            var parameter = parameter
            if case .string(let reference)? = parameter["$ref"], reference.hasPrefix(prefix) {
                parameter = document["components"]?["parameters"]?[String(reference.dropFirst(prefix.count))] ?? .null
            }
            guard parameter["in"] == "query", case .string(let name)? = parameter["name"] else { return nil }
            return name
        }
    }
}
