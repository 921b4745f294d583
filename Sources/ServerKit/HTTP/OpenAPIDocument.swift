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

    /// Every operation in the document as `GET /products/{id}`, in order.
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

    /// A line for every route whose operation lacks a status that its kind of route can answer, or an answer's `X-Request-Id`.
    ///
    /// Every route refuses query parameters (400), one that takes a body refuses a large one and other media types (413, 415), and one that can follow events has room
    /// for so many followers (503).
    /// - Parameters:
    ///   - bodies: the routes that take a body
    ///   - more: the statuses that a route can answer besides
    public func missingResponses(
        of routes: [ServerRoute],
        bodies: (ServerRoute) -> Bool,
        more: (ServerRoute) -> [Int]
    ) throws(JSONSyntaxError) -> [String] {
        let document = try JSONDocument(bytes).value
        return routes.compactMap { route in
            let name = "\(route.method.rawValue) \(route.path.description)"
            let operation = document["paths"]?[route.path.description]?[route.method.rawValue.lowercased()]
            guard case .object(let responses)? = operation?["responses"] else { return "\(name): no responses" }
            var expected: Set = [400]
            if bodies(route) { expected.formUnion([413, 415]) }
            if route.query.contains("follow") { expected.insert(503) }
            expected.formUnion(more(route))
            let missing = expected.subtracting(responses.compactMap { Int($0.name) }).sorted()
            if bodies(route) != (operation?["requestBody"] != nil) {
                return "\(name): the document and the route differ in whether it takes a body"
            }
            if !missing.isEmpty { return "\(name): the document lacks \(missing)" }
            let nameless = responses.filter { resolve($0.value, "responses", in: document)["headers"]?["X-Request-Id"] == nil }
            return nameless.isEmpty ? nil : "\(name): no X-Request-Id in \(nameless.map(\.name))"
        }
    }

    /// What a reference to a component stands for; the value itself if it is none.
    private func resolve(_ value: JSONValue, _ kind: String, in document: JSONValue) -> JSONValue {
        let prefix = "#/components/\(kind)/"
        guard case .string(let reference)? = value["$ref"], reference.hasPrefix(prefix) else { return value }
        return document["components"]?[kind]?[String(reference.dropFirst(prefix.count))] ?? .null
    }

    private func queryParameters(of holder: JSONValue?, in document: JSONValue) -> [String] {
        guard case .array(let parameters)? = holder?["parameters"] else { return [] }
        return parameters.compactMap { parameter in
            let parameter = resolve(parameter, "parameters", in: document)
            guard parameter["in"] == "query", case .string(let name)? = parameter["name"] else { return nil }
            return name
        }
    }
}
