import Eventually
import Foundation
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import FlashSaleKit

@Suite("A sale", .timeLimit(.minutes(10)))
struct SaleTests {
    /// Everything printed.
    final class Output: Sendable {
        private let text = Mutex("")
        var lines: [String] { text.withLock { $0.split(separator: "\n").map(String.init) } }
        func write(_ more: String) { text.withLock { $0 += more } }
    }

    func settings(units: Int = 300, orders: Int = 1000, concurrency: Int = 16) -> SaleConfiguration {
        var settings = SaleConfiguration()
        settings.units = units
        settings.orders = orders
        settings.arrivals = .concurrency(concurrency)
        settings.settle = .seconds(60)
        settings.limit = .seconds(300)
        return settings
    }

    func hold(_ settings: SaleConfiguration, at shop: Shop, stack: StackScript? = nil, output: Output = Output()) async throws
        -> SaleResult
    {
        var settings = settings
        settings.gateway = try await shop.open()
        settings.productServer = settings.gateway
        settings.productAdmin = settings.gateway
        let console = Console(isTerminal: false, isQuiet: false) { output.write($0) }
        let sale = Sale(
            settings: settings,
            stack: stack,
            source: shop,
            console: console,
            eventLoop: MultiThreadedEventLoopGroup.singleton.next()
        )
        do {
            let result = try await sale.run()
            await shop.close()
            return result
        } catch {
            await shop.close()
            throw error
        }
    }

    @Test func sellsOutAndPasses() async throws {
        let result = try await hold(settings(), at: Shop())
        #expect(result.audit.passes, "\(result.audit.findings)")
        #expect(result.audit.line == "AUDIT PASS initial=300 confirmed=300 oversold=0 leaked=0 unmatched=0 pending=0 drift=0")
        #expect(result.load.confirmed == 300)
        #expect(result.load.sent == 1000)
        #expect(result.load.soldOut == 700)
        #expect(result.load.errors == 0)
        #expect(result.load.latencies.count == 1000)
        #expect(result.story.map(\.text) == ["sale opens", "the last unit is sold", "sale closes"])
    }

    @Test func unclearAnswersAreAskedAgainUnderTheSameKey() async throws {
        var faults = Shop.Faults()
        faults.unclearEvery = 7
        faults.silentEvery = 61
        let shop = Shop(faults: faults)
        var settings = settings()
        // Long enough that a busy machine has connected by then: an attempt that was never sent is one that the shop cannot count.
        settings.timeout = .seconds(2)
        let result = try await hold(settings, at: shop)
        #expect(result.audit.passes, "\(result.audit.findings)")
        #expect(result.load.confirmed == 300)
        #expect(result.load.orders == 1000)
        #expect(result.load.retries >= 142)
        #expect(result.load.retryCauses["UNAVAILABLE"] ?? 0 > 100)
        #expect(result.load.retryCauses["TIMED_OUT"] ?? 0 > 5)
        #expect(shop.malformed == 0, "every repeat says which attempt it is")
    }

    // MARK: Accepted first, decided later

    private func asyncSettings() -> SaleConfiguration {
        var settings = settings()
        settings.isAsync = true
        return settings
    }

    @Test func acceptedOrdersAreFollowedToTheirEnd() async throws {
        var faults = Shop.Faults()
        faults.decidesAfter = .milliseconds(200)
        faults.unclearEvery = 7
        let result = try await hold(asyncSettings(), at: Shop(faults: faults))
        #expect(result.audit.passes, "\(result.audit.findings)")
        #expect(result.hasSettled)
        #expect(result.load.acceptedOrders.count == 350 && result.load.acceptLatencies.count == 350)
        // 50 were accepted and found nothing left, 650 were turned away at once.
        #expect(result.load.confirmed == 300 && result.load.soldOut == 700 && result.load.failed == 0 && result.load.errors == 0)
        #expect(result.load.orders == 1000)
        let drain = try #require(result.load.drain)
        #expect(drain.latencies.count == 350 && (199...202).contains(drain.latencies.milliseconds(at: 50)))
        #expect(drain.seconds > 0.19 && drain.seconds < 0.21 && drain.throughput > 0)
        let json = try #require(try JSONSerialization.jsonObject(with: SaleReport(result).json()) as? [String: Any])
        for key in [
            "acceptLatencyMs", "finalLatencyMs", "drainSeconds", "acceptThroughput", "drainThroughput", "outboxOpen", "deadLetters",
        ] {
            #expect(json[key] != nil, "\(key)")
        }
        #expect(json["pass"] as? Bool == true && json["confirmed"] as? Int == 300 && json["outboxOpen"] as? Int == 0)
        #expect(SaleReport(result).table.contains { $0.hasPrefix("final state") })
    }

    /// An accepted order is not a sold unit: more may be accepted than there are, and nobody looked at what became of them.
    @Test func acceptedOrdersThatNobodyAuditsAreNoOversell() async throws {
        let shop = Shop()
        var settings = asyncSettings()
        settings.gateway = try await shop.open()
        settings.productServer = settings.gateway
        let sale = Sale(
            settings: settings,
            tools: FaultTools(stack: nil, eventLoopGroup: MultiThreadedEventLoopGroup.singleton),
            basis: .none,
            console: Console(isTerminal: false, isQuiet: true) { _ in },
            eventLoop: MultiThreadedEventLoopGroup.singleton.next()
        )
        let result = try await sale.run()
        await shop.close()
        #expect(result.load.acceptedOrders.count == 350)
        #expect(result.audit.passes, "\(result.audit.findings)")
        #expect(
            result.audit.line == "AUDIT NONE initial=300 confirmed=unknown oversold=unknown leaked=0 unmatched=0 pending=0 drift=unknown"
        )
        #expect(result.audit.remarks.contains { $0.hasPrefix("accepted, not decided") })
        let report = SaleReport(result, requirements: try Requirement.list("oversold=0"))
        #expect(report.firstMissed == .books, "what was not measured is not met")
        #expect(!report.table.contains { $0.contains("confirmed") }, "\(report.table)")
        #expect(report.figures["oversold"] == .null && report.figures["outcomes"]?["confirmed"] == nil)
        #expect(report.figures["outcomes"]?["accepted"]?["orders"] == .int(350))
    }

    @Test func aSaleThatConfirmsAtOnceHasNoSuchFigures() async throws {
        let result = try await hold(settings(), at: Shop())
        let json = try #require(try JSONSerialization.jsonObject(with: SaleReport(result).json()) as? [String: Any])
        #expect(json["acceptLatencyMs"] == nil && json["outboxOpen"] == nil && result.load.drain == nil)
    }

    @Test func anAcceptedOrderThatIsForgottenFailsTheAudit() async throws {
        var faults = Shop.Faults()
        faults.forgets = 17
        let result = try await hold(asyncSettings(), at: Shop(faults: faults))
        #expect(!result.audit.passes && result.audit.lostAnswers == 1)
    }

    @Test func messagesThatAreNeverSentFailTheAudit() async throws {
        var faults = Shop.Faults()
        faults.messages = OutboxTotals(open: 3, dead: 1)
        let result = try await hold(asyncSettings(), at: Shop(faults: faults))
        #expect(result.audit.findings == ["outbox: 3 messages are not sent, 1 of them given up"])
    }

    @Test func ordersThatStayPendingAreToldAndFailTheAudit() async throws {
        var faults = Shop.Faults()
        faults.decidesAfter = .seconds(60)
        var settings = asyncSettings()
        settings.settle = .milliseconds(500)
        let result = try await hold(settings, at: Shop(faults: faults))
        #expect(!result.hasSettled && !result.audit.passes && result.audit.pending == 1)
    }

    @Test func aForgottenOrderFailsTheAudit() async throws {
        var faults = Shop.Faults()
        faults.forgets = 17
        let result = try await hold(settings(), at: Shop(faults: faults))
        #expect(!result.audit.passes)
        #expect(result.audit.lostAnswers == 1)
        #expect(result.audit.findings.contains { $0.contains("order 17: ") && $0.contains("; the buyer was told CONFIRMED") })
    }

    @Test func anAnswerThatTheLedgerDoesNotBearOutIsListed() async throws {
        let denied = try await hold(settings(), at: Shop(faults: Shop.Faults(denies: 23)))
        #expect(!denied.audit.passes && denied.audit.unmatched == 1 && denied.audit.lostAnswers == 0)
        let offender = try #require(denied.audit.offenders.first)
        #expect(
            offender.order == 23 && offender.told == "SOLD OUT" && offender.found == "the order is CONFIRMED" && offender.buyer == "buyer"
        )
        #expect(offender.key?.hasPrefix("sale-1-") == true)
        let confused = try await hold(settings(), at: Shop(faults: Shop.Faults(confuses: 23)))
        // Another buyer's order was told twice, its own is nobody's; the key gives both away.
        #expect(confused.audit.offenders.count == 2 && confused.audit.offenders.allSatisfy { $0.order == 22 })
        let json = try #require(try JSONSerialization.jsonObject(with: SaleReport(denied).json()) as? [String: Any])
        #expect((json["offenders"] as? [[String: Any]])?.first?["order"] as? Int == 23)
        #expect(json["answersChecked"] as? Int == 1000)
    }

    @Test func buyersGiveUpAtTheBound() async throws {
        var faults = Shop.Faults()
        faults.refusesAll = true
        var settings = settings(units: 10, orders: 20)
        settings.retries = 1
        let result = try await hold(settings, at: Shop(faults: faults))
        #expect(result.load.errors == 20)
        #expect(result.load.retries == 20)
        #expect(result.load.failReasons == ["INTERNAL": 20])
    }

    @Test func anOpenLoopShedsAtItsBoundAndCountsFromTheIntendedMoment() async throws {
        var faults = Shop.Faults()
        faults.delay = .milliseconds(40)
        var settings = settings(units: 100, orders: 150)
        settings.arrivals = .rate(try ArrivalRate("2000/s"), inFlight: 8)
        settings.seed = 42
        let result = try await hold(settings, at: Shop(faults: faults))
        #expect(result.audit.passes, "\(result.audit.findings)")
        // 8 places of 40 ms carry 200 a second; the rest of 2,000 arrivals is turned away, and that is told.
        #expect(result.load.shed > 500)
        #expect(result.load.orders == 150)
        #expect(result.load.latencies.milliseconds(at: 50) >= 39)
        #expect(SaleReport(result).table.contains { $0.contains("shed") })
    }

    @Test func aSaleEndsAtItsLimit() async throws {
        var faults = Shop.Faults()
        faults.delay = .milliseconds(20)
        var settings = settings(units: 100_000, orders: 1_000_000)
        settings.limit = .milliseconds(400)
        let result = try await hold(settings, at: Shop(faults: faults))
        #expect(result.reachedLimit)
        #expect(result.audit.passes, "\(result.audit.findings)")
        #expect(result.load.orders < 1_000_000)
    }

    @Test func aProductIsMadeWithTheServicesToken() async throws {
        var settings = settings(units: 20, orders: 50)
        await #expect(throws: Sale.Failure.self) { try await hold(settings, at: Shop(faults: Shop.Faults(token: "secret"))) }
        settings.serviceToken = "secret"
        let result = try await hold(settings, at: Shop(faults: Shop.Faults(token: "secret")))
        #expect(result.load.confirmed == 20)
    }

    @Test func aGatewayWithoutTheProductIsSaid() async throws {
        await #expect(throws: Sale.Failure.self) { try await hold(settings(), at: Shop(faults: Shop.Faults(hidesProduct: true))) }
    }

    @Test(arguments: [true, false]) func noServerIsSaid(_ isGateway: Bool) async throws {
        let (shop, away) = (Shop(), Shop())
        var settings = settings()
        settings.gateway = try await (isGateway ? away : shop).open()
        settings.productServer = try await (isGateway ? shop : away).open()
        await away.close()
        let console = Console(isTerminal: false, isQuiet: true) { _ in }
        let sale = Sale(
            settings: settings,
            stack: nil,
            source: shop,
            console: console,
            eventLoop: MultiThreadedEventLoopGroup.singleton.next()
        )
        let failure = await #expect(throws: Sale.Failure.self) { try await sale.run() }
        #expect(failure?.description.contains(isGateway ? settings.gateway : settings.productServer) == true)
        await shop.close()
    }

    // MARK: Outages

    /// A stack script that makes a file for a server that is down, and keeps a record of its calls.
    private struct Stack {
        let folder: URL
        var down: String { folder.appendingPathComponent("down").path }
        var calls: [String] {
            ((try? String(contentsOf: folder.appendingPathComponent("calls"), encoding: .utf8)) ?? "").split(separator: "\n").map(
                String.init
            )
        }
        var script: StackScript { StackScript(path: folder.appendingPathComponent("stack").path) }

        init(killing: String = "touch down") throws {
            folder = FileManager.default.temporaryDirectory.appendingPathComponent("flash-sale-test-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            let text = """
                #!/bin/sh
                cd '\(folder.path)'
                echo "$@" >> calls
                case $1 in
                    status) echo "SERVER STATE PID"; echo "redis running 4711 6379 1m" ;;
                    kill | pause) \(killing) ;;
                    start | resume) rm -f down ;;
                esac
                """
            let path = folder.appendingPathComponent("stack").path
            try text.write(toFile: path, atomically: true, encoding: .utf8)
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
        }

        func remove() {
            try? FileManager.default.removeItem(at: folder)
        }
    }

    /// The longest that a task of this process has waited for its turn.
    private final class Stall: Sendable {
        private let longest = Mutex(Duration.zero)

        /// Looks while `body` runs.
        static func watched<Value>(_ body: () async throws -> Value) async rethrows -> (Value, longest: Duration) {
            let stall = Stall()
            let watching = Task {
                while !Task.isCancelled {
                    let began = ContinuousClock.now
                    try? await Task.sleep(for: .milliseconds(10))
                    let waited = ContinuousClock.now - began
                    stall.longest.withLock { $0 = max($0, waited) }
                }
            }
            defer { watching.cancel() }
            return (try await body(), stall.longest.withLock { $0 })
        }
    }

    @Test func anOutageIsTakenGivenBackAndTold() async throws {
        let stack = try Stack()
        defer { stack.remove() }
        let shop = Shop(downFile: stack.down)
        var settings = settings(units: 3000, orders: 4000, concurrency: 8)
        settings.disruptions = [try Disruption(server: "redis", kind: .kill, span: "30%+500ms")]
        let output = Output()
        let (result, stall) = try await Stall.watched { try await hold(settings, at: shop, stack: stack.script, output: output) }
        #expect(result.audit.passes, "\(result.audit.findings)")
        #expect(stack.calls == ["status", "status redis", "kill redis", "start redis"])
        #expect(shop.soldWhileDown > 0)
        #expect(result.transitions.map(\.to) == ["OPEN", "HALF_OPEN", "CLOSED"])
        // The story in its order, and printed in that order.
        let expected = [
            "sale opens", "redis (pid 4711) killed", "breaker CLOSED -> OPEN", "redis is back", "breaker OPEN -> HALF_OPEN",
            "breaker HALF_OPEN -> CLOSED",
            "the last unit is sold", "sale closes",
        ]
        #expect(result.story.count == expected.count, "\(result.story.map(\.text))")
        for (line, beginning) in zip(result.story, expected) { #expect(line.text.hasPrefix(beginning), "\(line.text)") }
        let printed = output.lines.filter { line in result.story.contains { $0.rendered == line } }
        // A line waits for earlier ones for 0.7 s: what a machine learns later than that, because it stood still, it prints later.
        let told = result.story.map(\.rendered)
        #expect(printed == told || stall > .milliseconds(300) && printed.sorted() == told.sorted(), "\(printed), after a stall of \(stall)")
        // Units were left when Redis was back: the last one went after that.
        let closed = try #require(result.transitions.last)
        #expect(try #require(result.load.lastConfirmedAt).inSeconds > closed.atSeconds)
        let phases = result.load.phases
        #expect(phases[SalePhase.before.rawValue].confirmed > 0)
        #expect(phases[SalePhase.outage.rawValue].confirmed > 0)
        #expect(phases[SalePhase.after.rawValue].confirmed > 0)
        #expect(phases.reduce(0) { $0 + $1.orders } == result.load.sent)
    }

    @Test func aServerThatCannotBeTakenAwayEndsTheSale() async throws {
        let stack = try Stack(killing: "echo 'no such server' && exit 1")
        defer { stack.remove() }
        var settings = settings(units: 100, orders: 1000)
        settings.disruptions = [try Disruption(kill: "redis@0s..1s")]
        await #expect(throws: StackScript.Failure.self) { try await hold(settings, at: Shop(), stack: stack.script) }
        #expect(stack.calls.last == "start redis", "whatever was done is undone")
    }

    @Test func aCancelledSaleGivesBackWhatItTook() async throws {
        let stack = try Stack()
        defer { stack.remove() }
        let shop = Shop(downFile: stack.down)
        var settings = settings(units: 100_000, orders: 1_000_000)
        settings.disruptions = [try Disruption(server: "redis", kind: .kill, span: "0s..250s")]
        let held = settings
        let task = Task { try await hold(held, at: shop, stack: stack.script) }
        #expect(try await eventually { FileManager.default.fileExists(atPath: stack.down) })
        task.cancel()
        await #expect(throws: (any Error).self) { try await task.value }
        #expect(!FileManager.default.fileExists(atPath: stack.down))
        #expect(stack.calls.last == "start redis")
    }

    // MARK: What was measured outlives what fails

    private func measured(_ settings: SaleConfiguration, _ shop: Shop, stack: StackScript? = nil) async throws -> SaleResult {
        var settings = settings
        settings.gateway = try await shop.open()
        settings.productServer = settings.gateway
        let console = Console(isTerminal: false, isQuiet: true) { _ in }
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let sale = Sale(settings: settings, stack: stack, source: shop, console: console, eventLoop: loop)
        do {
            let result = try await sale.measured()
            await shop.close()
            return result
        } catch {
            await shop.close()
            throw error
        }
    }

    @Test func aFaultThatFailsLeavesTheFiguresAndTheAudit() async throws {
        let stack = try Stack(killing: "echo 'no such server' && exit 1")
        defer { stack.remove() }
        var settings = settings(units: 100, orders: 1000)
        settings.disruptions = [try Disruption(kill: "redis@0s..1s")]
        let result = try await measured(settings, Shop(), stack: stack.script)
        #expect(result.saleFailure is StackScript.Failure && result.auditFailure == nil && result.audit.basis == .stores)
        let report = SaleReport(result)
        #expect(report.table.contains { $0.hasPrefix("the sale ended early: ") } && report.passes && !report.isWhole)
    }

    @Test func anAuditThatFailsLeavesTheFigures() async throws {
        var settings = settings()
        settings.beforeAudit = "echo broken; exit 7"
        let result = try await measured(settings, Shop())
        #expect(result.auditFailure is StackScript.Failure && result.load.orders == 1000 && result.load.confirmed == 300)
        #expect(result.audit.basis == .none && result.audit.remarks.first?.contains("failed (7): broken") == true)
        let json = try #require(try JSONSerialization.jsonObject(with: SaleReport(result).json()) as? [String: Any])
        #expect(json["pass"] as? Bool == false && json["failure"] is String && json["orders"] as? Int == 1000)
    }

    /// An audit that somebody has ended has not found anything.
    @Test func anInterruptedAuditAccusesNobody() async throws {
        let stack = try Stack()
        defer { stack.remove() }
        var settings = settings()
        settings.beforeAudit = "touch '\(stack.down)'; sleep 1"
        let held = settings
        let task = Task { try await measured(held, Shop()) }
        #expect(try await eventually { FileManager.default.fileExists(atPath: stack.down) })
        task.cancel()
        let result = try await task.value
        #expect(result.auditFailure is CancellationError && result.audit.remarks == ["not audited: interrupted"])
        #expect(result.audit.findings.isEmpty && result.load.orders == 1000 && !SaleReport(result).isWhole)
        var books = Books()
        books.redis = nil
        let blind = books
        let audit = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await Audit.run(blind, product: 1, load: nil)
        }
        await #expect(throws: CancellationError.self) { try await audit.value }
    }

    @Test func aPipeGetsTheLinesInTheirOrder() async throws {
        var faults = Shop.Faults()
        faults.delay = .milliseconds(10)
        var settings = settings(units: 100_000, orders: .max, concurrency: 4)
        settings.lasts = .seconds(2)
        settings.interval = .milliseconds(200)
        let output = Output()
        let (_, stall) = try await Stall.watched { try await hold(settings, at: Shop(faults: faults), output: output) }
        let times = output.lines.compactMap { $0.wholeMatch(of: #/\s*([0-9.]+) s  .*/#).flatMap { Double($0.1) } }
        // A live line has one digit behind the point.
        let isOrdered = zip(times, times.dropFirst()).allSatisfy { $0 <= $1 + 0.05 }
        #expect(times.count > 8 && (isOrdered || stall > .milliseconds(300)), "\(output.lines), after a stall of \(stall)")
    }

    @Test func aCommandRunsBetweenSaleAndAudit() async throws {
        let stack = try Stack()
        defer { stack.remove() }
        var settings = settings(units: 10, orders: 20)
        settings.beforeAudit = "echo product $PRODUCT_ID is done"
        let output = Output()
        _ = try await hold(settings, at: Shop(), output: output)
        #expect(output.lines.contains("product 1 is done"))
    }

    // MARK: The report

    @Test func theFileHasItsKeys() async throws {
        let result = try await hold(settings(), at: Shop())
        let object = try #require(try JSONSerialization.jsonObject(with: SaleReport(result).json()) as? [String: Any])
        let keys = [
            "initial", "confirmed", "soldOut", "failed", "errors", "oversold", "leaked", "unmatched", "pending", "drift", "throughput",
        ]
        for key in keys { #expect(object[key] is NSNumber, "\(key)") }
        let latency = try #require(object["latencyMs"] as? [String: NSNumber])
        #expect(Set(latency.keys) == ["p50", "p90", "p99", "p999", "max"])
        #expect(object["breakerTransitions"] is [Any])
        #expect(object["confirmed"] as? Int == 300)
        #expect(object["soldOut"] as? Int == 700)
    }

    @Test func aMissingDriftIsNullNotAbsent() async throws {
        var result = try await hold(settings(units: 10, orders: 20), at: Shop())
        var books = Books()
        books.redis = nil
        result.audit = try await Audit.run(books, product: 1, load: nil)
        let object = try #require(try JSONSerialization.jsonObject(with: SaleReport(result).json()) as? [String: Any])
        #expect(object["drift"] is NSNull)
        #expect(object["pass"] as? Bool == false)
    }
}
