import Foundation
import NIOPosix
import Synchronization
import Testing

@testable import FlashSaleKit

/// What a sale needs of a deployment: its HTTP surface alone, with the headers, tokens and certificates it asks for.
@Suite("A sale anywhere", .timeLimit(.minutes(10)))
struct AnywhereTests {
    private let eventLoop = MultiThreadedEventLoopGroup.singleton.next()

    private func usual(_ url: String) -> SaleConfiguration {
        var settings = SaleConfiguration()
        settings.units = 60
        settings.orders = 150
        settings.arrivals = .concurrency(8)
        settings.settle = .seconds(60)
        settings.limit = .seconds(300)
        settings.gateway = url
        settings.productServer = url
        return settings
    }

    private func sale(_ settings: SaleConfiguration, _ basis: AuditBasis, stack: StackScript? = nil) -> Sale {
        Sale(
            settings: settings,
            stack: stack,
            basis: basis,
            console: Console(isTerminal: false, isQuiet: true) { _ in },
            eventLoop: eventLoop
        )
    }

    private func books(_ url: String, token: String? = nil, headers: [HeaderField] = []) throws -> AuditBasis {
        .http(
            HTTPBooks(
                admin: try HTTPEndpoint(url),
                adminToken: token,
                gateway: try HTTPEndpoint(url),
                headers: headers,
                eventLoop: eventLoop
            )
        )
    }

    private func open(_ faults: Shop.Faults = Shop.Faults(), _ body: (Shop, String) async throws -> Void) async throws {
        let shop = Shop(faults: faults)
        let url = try await shop.open()
        do {
            try await body(shop, url)
        } catch {
            await shop.close()
            throw error
        }
        await shop.close()
    }

    @Test func aGatewayAloneIsEnough() async throws {
        try await open { shop, url in
            shop.stock(60)
            var settings = usual(url)
            settings.product = 1
            settings.readsProductThroughGateway = true
            settings.productServer = "http://127.0.0.1:1"
            let result = try await sale(settings, .none).run()
            #expect(result.audit.line == "AUDIT NONE initial=60 confirmed=60 oversold=0 leaked=0 unmatched=0 pending=0 drift=unknown")
            #expect(result.audit.passes && result.audit.basis == .none && shop.productsMade == 0)
            let json = try #require(try JSONSerialization.jsonObject(with: SaleReport(result).json()) as? [String: Any])
            #expect(json["audit"] as? String == "none")
        }
    }

    @Test func headersGoWithEveryRequest() async throws {
        try await open(Shop.Faults(header: "X-Shop: let me in")) { shop, url in
            var settings = usual(url)
            settings.headers = [try HeaderField("X-Shop: let me in")]
            let result = try await sale(settings, books(url, headers: settings.headers)).run()
            #expect(result.audit.passes && result.load.confirmed == 60 && shop.strangers == 0, "\(result.audit.findings)")
        }
    }

    @Test func theAuditOverHTTPLooksEachOrderUp() async throws {
        try await open { _, url in
            let result = try await sale(usual(url), books(url)).run()
            #expect(result.audit.line == "AUDIT PASS initial=60 confirmed=60 oversold=0 leaked=0 unmatched=0 pending=0 drift=0")
            #expect(result.audit.basis == .http && result.audit.remarks.count == 1)
        }
        try await open(Shop.Faults(forgets: 17)) { _, url in
            let result = try await sale(usual(url), books(url)).run()
            #expect(!result.audit.passes && result.audit.lostAnswers == 1)
            #expect(
                result.audit.findings.contains { $0.contains("order 17: the buyer was told CONFIRMED, the gateway shows no such order") }
            )
        }
        try await open(Shop.Faults(drift: 3)) { _, url in
            var settings = usual(url)
            settings.settle = .milliseconds(100)
            let result = try await sale(settings, books(url)).run()
            #expect(!result.audit.passes && result.audit.drift == 3 && !result.hasSettled)
        }
    }

    @Test func anAdminPortThatAsksForATokenIsFoundBeforeTheSale() async throws {
        try await open(Shop.Faults(adminToken: "t")) { shop, url in
            let failure = await #expect(throws: HTTPBooks.Failure.self) { try await sale(usual(url), books(url)).run() }
            #expect(failure?.description.contains("ADMIN_TOKEN") == true && shop.productsMade == 0)
            var settings = usual(url)
            settings.productAdmin = url
            settings.adminToken = "t"
            let result = try await sale(settings, books(url, token: "t")).run()
            #expect(result.audit.passes)
        }
    }

    @Test func certificatesAreChecked() async throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("flash-sale-\(UUID().uuidString).pem")
        try TestCertificate.certificate.write(to: file, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(at: file) }
        try await open(Shop.Faults(isEncrypted: true)) { shop, url in
            #expect(url.hasPrefix("https://"))
            let failure = await #expect(throws: Sale.Failure.self) { try await sale(usual(url), .none).run() }
            #expect(
                failure?.description.contains("TLS: certificate verify failed") == true && shop.productsMade == 0,
                "\(String(describing: failure))"
            )
            for isUnverified in [false, true] {
                var settings = usual(url)
                settings.tls.certificateAuthority = isUnverified ? nil : file.path
                settings.tls.isUnverified = isUnverified
                let result = try await sale(settings, .none).run()
                #expect(result.load.confirmed == 60)
            }
        }
        var options = TLSOptions()
        options.certificateAuthority = "/nonexistent/ca.pem"
        #expect(throws: PlanError.self) { try HTTPEndpoint("https://127.0.0.1", tls: options) }
    }

    // MARK: Found before the sale

    @Test func aServerThatTheStackDoesNotHaveIsFound() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("flash-sale-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let path = folder.appendingPathComponent("stack").path
        try "#!/bin/sh\necho SERVER STATE; echo redis running; echo product-1 running\n".write(
            toFile: path,
            atomically: true,
            encoding: .utf8
        )
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
        try await open { shop, url in
            var settings = usual(url)
            settings.disruptions = [try Disruption(kill: "prodcut@1s..2s")]
            let error = await #expect(throws: PlanError.self) { try await sale(settings, .none, stack: StackScript(path: path)).run() }
            #expect(error?.description == "the stack has no server 'prodcut', only redis, product-1")
            settings.disruptions = [try Disruption(kill: "redis@1s..2s")]
            await #expect(throws: PlanError.self) { try await sale(settings, .none).run() }
            #expect(shop.productsMade == 0)
        }
    }

    @Test(arguments: [Shop.Faults(header: "X-Shop: let me in"), Shop.Faults(hidesProduct: true)])
    func everyGatewayIsAskedForTheProduct(faults: Shop.Faults) async throws {
        try await open { _, url in
            try await open(faults) { _, other in
                var settings = usual(url)
                settings.moreGateways = [other]
                let failure = await #expect(throws: Sale.Failure.self) { try await sale(settings, .none).run() }
                #expect(failure?.description.contains("the gateway at \(other) ") == true, "\(String(describing: failure))")
            }
        }
    }

    @Test func anAdminPortThatDoesNotAnswerIsFoundWhateverTheAudit() async throws {
        try await open(Shop.Faults(adminToken: "t")) { shop, url in
            for basis in [AuditBasis.stores(shop), .none] {
                for (admin, words) in [(url, "set ADMIN_TOKEN"), ("http://127.0.0.1:1", "cannot connect")] {
                    var settings = usual(url)
                    settings.productAdmin = admin
                    let failure = await #expect(throws: Sale.Failure.self) { try await sale(settings, basis).run() }
                    #expect(failure?.description.contains(words) == true && shop.productsMade == 0, "\(String(describing: failure))")
                }
            }
        }
    }

    @Test func aRedisThatDoesNotAnswerIsFound() async throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("flash-sale-\(UUID().uuidString)").path
        _ = FileManager.default.createFile(atPath: file, contents: nil)
        defer { try? FileManager.default.removeItem(atPath: file) }
        let shop = Shop(downFile: file)
        let url = try await shop.open()
        let failure = await #expect(throws: Sale.Failure.self) { try await sale(usual(url), .stores(shop)).run() }
        #expect(failure?.description.contains("REDIS_URL") == true && shop.productsMade == 0)
        await shop.close()
    }

    @Test func oneFileIsKnownUnderBothItsNames() throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("flash-sale-\(UUID().uuidString)").path
        defer { for name in [path, path + "-2", path + "-3"] { try? FileManager.default.removeItem(atPath: name) } }
        let file = try OutputFile(path)
        try FileManager.default.createSymbolicLink(atPath: path + "-2", withDestinationPath: path)
        #expect(try file.isSame(as: OutputFile(path + "-2")) && !file.isSame(as: OutputFile(path + "-3")))
        #expect(try !OutputFile("/dev/null").isSame(as: OutputFile("/dev/null")), "what is no file keeps nothing to write over")
    }

    @Test func storesThatDoNotAnswerAreFound() async throws {
        try await open { shop, url in
            let stores = try StoreReader(
                productDatabase: "postgresql://127.0.0.1:1/x",
                orderDatabase: "postgresql://127.0.0.1:1/x",
                redisURL: "redis://127.0.0.1:1",
                eventLoopGroup: MultiThreadedEventLoopGroup.singleton
            )
            let failure = await #expect(throws: Sale.Failure.self) { try await sale(usual(url), .stores(stores)).run() }
            #expect(failure?.description.contains("database") == true && shop.productsMade == 0)
            await stores.close()
        }
    }

    @Test func aFileThatCannotBeWrittenIsFoundAndOneThatCanKeepsItsContentUntilThen() throws {
        #expect(throws: PlanError.self) { try OutputFile("/nonexistent/report.json") }
        #expect(throws: PlanError.self) { try OutputFile("/") }
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("flash-sale-\(UUID().uuidString).json").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try "an older and longer report".write(toFile: path, atomically: true, encoding: .utf8)
        let file = try OutputFile(path)
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "an older and longer report")
        try file.write(Data("new".utf8))
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "new")
        try file.append(Data("er".utf8))
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "newer")
        let full = try OutputFile("/dev/full")
        #expect(throws: PlanError.self) { try full.write(Data("x".utf8)) }
    }
}
