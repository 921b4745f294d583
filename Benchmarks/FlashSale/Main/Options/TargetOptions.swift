public import ArgumentParser
import FlashSaleKit
import Foundation
import NIOCore

extension Audit.Basis: ExpressibleByArgument {}

/// Where the orders go, and what the audit is taken from.
struct TargetOptions: ParsableArguments {
    @Option(help: "A gateway's address, http:// or https://. Given several times, buyers are spread over all. (default: $GATEWAY_URL)")
    var gateway: [String] = []
    @Option(
        help: ArgumentHelp(
            "'Name: value', sent with every request to the gateway; @FILE holds one a line. May be given several times.",
            valueName: "field"
        )
    )
    var header: [String] = []
    @Option(help: "The product server's own address, which makes the product. (default: $PRODUCT_SERVER_URL)") var productServer: String?
    @Option(help: "The product server's admin port. (default: $PRODUCT_ADMIN_URL; without one the breaker is not watched)")
    var productAdmin: String?
    @Option(help: "The gateway's path to the products.") var productPath = "/product-service/products"
    @Option(help: "The gateway's path for orders. (default: /order-service/orders, with --async /order-service/v2/orders)") var orderPath:
        String?
    @Option(help: "A PEM file of the certificates to trust for https://, instead of the system's.") var cacert: String?
    @Flag(help: "Accept any certificate. Only for a test server.") var insecure = false
    @Option(
        help: """
            stores: read both databases and Redis; http: ask the product server's admin port and look up each answered order through the gateway, which proves \
            less; none. (default: stores)
            """
    ) var audit: Audit.Basis?
    @Flag(help: "The same as --audit none.") var noAudit = false
    @Option(help: "The script that runs the servers. (default: scripts/stack, if there is one)") var stack: String?

    var basis: Audit.Basis { noAudit ? .none : audit ?? .stores }

    /// Takes the addresses in.
    func fill(_ settings: inout SaleConfiguration, environment: [String: String]) throws {
        guard !noAudit || audit == nil || audit == Audit.Basis.none else { throw PlanError("--no-audit and --audit exclude each other") }
        guard !insecure || cacert == nil else { throw PlanError("--insecure takes any certificate, --cacert certain ones: choose") }
        func address(_ given: String?, _ name: String) -> String? {
            let url = given ?? environment["\(name)_URL"]?.split(separator: ",").first.map(String.init)
            return url ?? environment["\(name)_PORT"].map { "http://127.0.0.1:\($0)" }
        }
        settings.gateway = address(gateway.first, "GATEWAY") ?? settings.gateway
        settings.moreGateways = Array(gateway.dropFirst())
        let server = productServer ?? environment["PRODUCT_SERVER_URL"].flatMap(Self.firstServer)
        let port = environment["PRODUCT_PORT"].map { "http://127.0.0.1:\($0)" }
        settings.readsProductThroughGateway = server == nil && port == nil
        settings.productServer = server ?? port ?? settings.productServer
        settings.productAdmin = address(productAdmin, "PRODUCT_ADMIN")
        settings.serviceToken = environment["PRODUCT_SERVICE_TOKEN"].flatMap { $0.isEmpty ? nil : $0 }
        settings.adminToken = environment["ADMIN_TOKEN"].flatMap { $0.isEmpty ? nil : $0 }
        settings.headers = try header.flatMap { try HeaderField.read($0) }
        settings.tls.certificateAuthority = cacert
        settings.tls.isUnverified = insecure
        try settings.tls.check()
        for (name, path) in [("--product-path", productPath), ("--order-path", orderPath ?? "/")] {
            guard path.hasPrefix("/"), path.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
                throw PlanError("\(name): '\(path)' is no path")
            }
        }
        settings.productPath = productPath
        settings.orderPath = orderPath
    }

    /// What the audit is taken from, and the connections to close behind it.
    func basis(
        _ settings: SaleConfiguration,
        environment: [String: String],
        eventLoop: any EventLoop
    ) throws -> (AuditBasis, StoreReader?) {
        switch basis {
        case .stores:
            let source = try Environment.source(environment)
            return (.stores(source), source)
        case .http:
            guard let admin = settings.productAdmin else { throw PlanError("--audit http needs --product-admin or PRODUCT_ADMIN_URL") }
            let books = HTTPBooks(
                admin: try HTTPEndpoint(admin, tls: settings.tls),
                adminToken: settings.adminToken,
                gateway: try HTTPEndpoint(settings.gateway, tls: settings.tls),
                headers: settings.headers,
                ordersPath: settings.orderPath ?? "/order-service/orders",
                eventLoop: eventLoop
            )
            return (.http(books), nil)
        case .none: return (.none, nil)
        }
    }

    /// The first address of the setting, which may name cells: their ids stand before an equals sign.
    private static func firstServer(_ setting: String) -> String? {
        let cell = setting.first?.isNumber == true ? setting.drop { $0 != "=" }.dropFirst() : setting[...]
        return cell.split { $0 == "," || $0 == ";" }.first.map(String.init)
    }
}
