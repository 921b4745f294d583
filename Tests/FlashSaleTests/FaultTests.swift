import Eventually
import Foundation
import NIOPosix
import Testing

@testable import FlashSaleKit

@Suite("Faults on schedule", .timeLimit(.minutes(10)))
struct FaultTests {
    private let group = MultiThreadedEventLoopGroup.singleton

    @Test func areRead() throws {
        let pause = try Disruption(fault: "order-2:pause@4s+2s")
        #expect(
            pause.server == "order-2" && pause.kind == .pause && pause.start == .elapsed(.seconds(4)) && pause.end == .after(.seconds(2))
        )
        let slow = try Disruption(fault: "redis:slow=1.5s@30%..60%")
        #expect(slow.kind == .slow(.milliseconds(1500)) && slow.start == .sold(0.3) && slow.end == .at(.sold(0.6)))
        let flush = try Disruption(fault: "redis:flush@5s")
        #expect(flush.kind == .flush && flush.end == .after(.zero), "what is done once needs no time")
        #expect(try Disruption(fault: "redis:jitter=20ms@4s").words == "redis jitter=20ms 4s+1s")
        #expect(try Disruption(fault: "redis:bandwidth=64000@4s").kind == .bandwidth(64_000))
        #expect(slow.words == "redis slow=1500ms 30%..60%" && flush.words == "redis flush 5s")
    }

    @Test(arguments: [
        "", "redis", "redis@4s", "redis:pause", ":pause@4s", "redis:@4s", "redis:explode@4s", "redis:slow@4s", "redis:slow=@4s",
        "redis:slow=0ms@4s", "redis:jitter=0ms@4s", "redis:jitter@4s", "redis:bandwidth=0@4s", "redis:bandwidth=fast@4s",
        "redis:bandwidth@4s",
        "redis:flush@4s+1s", "redis:cut@1s..2s", "re dis:kill@1s", "-x:kill@1s", "redis:kill:pause@4s",
    ])
    func whatIsNoFaultIsSaid(text: String) {
        #expect(throws: PlanError.self) { try Disruption(fault: text) }
    }

    @Test(arguments: [
        ("redis:kill@1s", false), ("order:pause@1s", false), ("nobody:kill@1s", true), ("redis:flush@1s", false),
        ("redis-1:kill@1s", false), ("redis-2:kill@1s", true), ("redis-master:kill@1s", false), ("postgres-primary:pause@1s", false),
        ("redis-master:flush@1s", true), ("rabbitmq-master:kill@1s", true),
        ("postgres:flush@1s", true),
        ("redis:cut@1s", false), ("postgres:cut@1s", false), ("rabbitmq:cut@1s", true), ("redis:slow=5ms@1s", true),
        ("gate:slow=5ms@1s", false),
        ("gate:cut@1s", false), ("gate:stall@1s", false), ("away:stall@1s", true),
    ])
    func whatCannotBeMadeIsFoundBeforeTheSale(text: String, isRefused: Bool) throws {
        let folder = try Folder()
        defer { folder.remove() }
        var tools = FaultTools(stack: nil, eventLoopGroup: group)
        tools.redisURL = "redis://127.0.0.1:1"
        tools.databases = ["postgresql://127.0.0.1:1/x"]
        tools.proxies = ["gate": folder.file("commands"), "away": folder.path("nonexistent")]
        let disruption = try Disruption(fault: text)
        let known = ["redis", "postgres", "rabbitmq", "product-1", "order-1"]
        if isRefused {
            #expect(throws: PlanError.self) { try tools.check(disruption, known: known) }
        } else {
            try tools.check(disruption, known: known)
        }
        let bare = FaultTools(stack: nil, eventLoopGroup: group)
        #expect(throws: PlanError.self) { try bare.check(disruption, known: nil) }
    }

    @Test func aProxyIsToldAndHealed() async throws {
        let folder = try Folder()
        defer { folder.remove() }
        var tools = FaultTools(stack: nil, eventLoopGroup: group)
        tools.proxies = ["redis": folder.file("commands")]
        for text in ["redis:slow=200ms@1s", "redis:stall@1s", "redis:cut@1s", "redis:jitter=30ms@1s", "redis:bandwidth=64000@1s"] {
            let disruption = try Disruption(fault: text)
            try await tools.make(disruption)
            try await tools.undo(disruption)
        }
        let told = try String(contentsOfFile: folder.path("commands"), encoding: .utf8)
        #expect(told == "latency 200ms\nheal\nstall\nheal\nreset\njitter 30ms 30ms\nheal\nbandwidth 64000 64000\nheal\n")
        // A pipe that nobody reads is said, and is not waited for.
        mkfifo(folder.path("pipe"), 0o600)
        tools.proxies["redis"] = folder.path("pipe")
        await #expect(throws: FaultTools.Failure.self) { try await tools.make(try Disruption(fault: "redis:stall@1s")) }
        let found = #expect(throws: PlanError.self) { try tools.check(try Disruption(fault: "redis:stall@1s"), known: nil) }
        #expect(found?.description.contains("nobody reads it") == true)
    }

    @Test func aFaultThatNeverCameIsTold() async throws {
        let folder = try Folder()
        defer { folder.remove() }
        let result = try await hold(folder) {
            $0.disruptions = [try Disruption(kill: "order@60s..61s")]
            $0.limit = .milliseconds(300)
        }
        #expect(result.faults.isEmpty && result.faultsMissed == ["order kill 60s..61s"])
        let report = SaleReport(result)
        #expect(report.table.contains("fault order kill 60s..61s: never made, the sale was over before"))
        #expect(String(decoding: try report.json(), as: UTF8.self).contains("\"faultsMissed\" : [\n    \"order kill"))
    }

    /// A proxy keeps what other faults have set when one of them ends.
    @Test func theEndOfOneFaultLeavesTheOthers() async throws {
        let folder = try Folder()
        defer { folder.remove() }
        var tools = FaultTools(stack: nil, eventLoopGroup: group)
        tools.proxies = ["redis": folder.file("commands")]
        let faults = try ["slow=40ms", "jitter=2ms", "slow=90ms", "bandwidth=64000", "stall"].map {
            try Disruption(fault: "redis:\($0)@1s")
        }
        for fault in faults { try await tools.make(fault) }
        let before = try String(contentsOfFile: folder.path("commands"), encoding: .utf8).count
        for index in [1, 2, 4, 3, 0] { try await tools.undo(faults[index]) }
        let told = try String(contentsOfFile: folder.path("commands"), encoding: .utf8).dropFirst(before)
        #expect(told == "jitter 0ms 0ms\nlatency 40ms\nheal\nlatency 40ms\nbandwidth 64000 64000\nbandwidth 0 0\nheal\n")
    }

    @Test(arguments: [
        (["redis:kill@1s..5s", "redis:kill@2s..3s"], true), (["redis:kill@1s..5s", "redis-1:pause@4s+1s"], true),
        (["redis:kill@10%..50%", "redis:pause@40%..60%"], true), (["redis:kill@1s..5s", "redis:kill@5s..6s"], false),
        (["redis:kill@1s..5s", "postgres:kill@2s..3s"], false), (["redis:kill@1s..5s", "redis:slow=9ms@2s..3s"], false),
        // Only the sale will tell.
        (["redis:kill@1s..5s", "redis:kill@50%+2s"], false),
    ])
    func aServerIsTakenAwayOnceAtATime(faults: [String], isRefused: Bool) throws {
        let disruptions = try faults.map { try Disruption(fault: $0) }
        if isRefused {
            #expect(throws: PlanError.self) { try Disruption.checkOverlaps(disruptions) }
        } else {
            try Disruption.checkOverlaps(disruptions)
        }
    }

    /// What only the sale can tell: the second fault finds the server away, and leaves it to the first to give it back.
    @Test func aFaultAtAServerThatIsAwayIsNotMade() async throws {
        let folder = try Folder()
        defer { folder.remove() }
        let result = try await hold(folder) {
            $0.disruptions = [try Disruption(fault: "order:pause@0%+4s"), try Disruption(fault: "order-1:kill@2s+100ms")]
            $0.lasts = .milliseconds(100)
        }
        #expect(folder.calls.filter { !$0.hasPrefix("status") } == ["pause order", "resume order"])
        #expect(result.faults.count == 1 && result.story.contains { $0.text == "order-1 is not killed: it is away already" })
    }

    @Test func aSaleThatIsInterruptedBeforeItOpensEnds() async throws {
        let folder = try Folder()
        defer { folder.remove() }
        let interruption = Interruption()
        interruption.interrupt()
        await #expect(throws: Sale.Interrupted.self) { try await hold(folder, interruption) { $0.products = 3_000 } }
    }

    @Test func aScheduleOfFaultsIsKeptAndToldWithItsTimes() async throws {
        let folder = try Folder()
        defer { folder.remove() }
        let result = try await hold(folder) {
            $0.disruptions = [try Disruption(fault: "gate:slow=20ms@100ms+200ms"), try Disruption(fault: "order:pause@150ms+400ms")]
            $0.lasts = .milliseconds(100)
        }
        #expect(result.audit.passes, "\(result.audit.findings)")
        #expect(folder.calls == ["status", "status order", "pause order", "resume order"])
        #expect(try String(contentsOfFile: folder.path("commands"), encoding: .utf8) == "latency 20ms\nheal\n")
        // Each has a task of its own, so that on a busy machine the later one may come first.
        let spans = Dictionary(uniqueKeysWithValues: result.faults.map { ($0.server, $0) })
        let (gate, order) = (try #require(spans["gate"]), try #require(spans["order"]))
        #expect(result.faults.count == 2 && gate.words == "gate was slowed by 20 ms" && order.words == "order was paused")
        #expect(try gate.from >= 0.1 && #require(gate.to) - gate.from >= 0.19, "\(gate)")
        #expect(try order.from >= 0.15 && #require(order.to) - order.from >= 0.39, "\(order)")
        #expect(result.duration >= .milliseconds(550), "the sale lasts until every fault is over")
        #expect(HTMLReport(SaleReport(result)).text.contains("order was paused, "))
    }

    /// Who is the master is asked when the moment comes, and what was killed is what is started again.
    @Test func whoLeadsIsFoundAtTheMoment() async throws {
        let folder = try Folder()
        defer { folder.remove() }
        let result = try await hold(folder) {
            $0.disruptions = [try Disruption(kill: "postgres-primary@100ms+300ms")]
            $0.lasts = .milliseconds(100)
        }
        #expect(result.audit.passes, "\(result.audit.findings)")
        #expect(folder.calls == ["status", "leader postgres", "status postgres-2", "kill postgres-2", "start postgres-2"])
        #expect(result.faults.map(\.words) == ["postgres-2 (postgres-primary) was killed"])
        let told = result.story.map(\.text)
        #expect(told.contains { $0.hasPrefix("postgres-2 (postgres-primary) (pid 4713) killed") }, "\(told)")
    }

    /// A script that names no server leaves nothing to kill: the sale ends with that, and nothing is started.
    @Test func aSaleWhoseLeaderCannotBeFoundEnds() async throws {
        let folder = try Folder()
        defer { folder.remove() }
        await #expect(throws: FaultTools.Failure.self) {
            try await hold(folder) { $0.disruptions = [try Disruption(kill: "redis-master@0s+300ms")] }
        }
        #expect(folder.calls == ["status", "leader redis"])
    }

    @Test func anInterruptedSaleGivesBackTellsAndAudits() async throws {
        let folder = try Folder()
        defer { folder.remove() }
        let interruption = Interruption()
        let task = Task {
            try await hold(folder, interruption) {
                $0.disruptions = [try Disruption(fault: "order:pause@0s+150s")]
                $0.orders = 10_000_000
            }
        }
        try await eventually("the order server is paused; calls: \(folder.calls)") { folder.calls.last == "pause order" }
        #expect(interruption.interrupt() && !interruption.interrupt())
        let result = try await task.value
        #expect(folder.calls.last == "resume order" && result.wasInterrupted)
        #expect(result.audit.passes && result.load.orders > 0 && result.faults.first?.to != nil, "\(result.audit.findings)")
        let told = result.story.map(\.text)
        #expect(told.contains { $0.hasPrefix("interrupted:") } && told.contains("order is given back: the sale ends early"))
    }

    // MARK: A sale with a stand-in for the stack script

    private func hold(
        _ folder: Folder,
        _ interruption: Interruption = Interruption(),
        _ change: (inout SaleConfiguration) throws -> Void
    ) async throws -> SaleResult {
        let shop = Shop()
        var settings = SaleConfiguration()
        settings.units = 200
        settings.orders = 300
        settings.arrivals = .concurrency(4)
        settings.settle = .seconds(60)
        settings.isUnbudgeted = true
        settings.gateway = try await shop.open()
        settings.productServer = settings.gateway
        try change(&settings)
        var tools = FaultTools(stack: StackScript(path: try folder.stack()), eventLoopGroup: group)
        tools.proxies = ["gate": folder.file("commands")]
        let console = Console(isTerminal: false, isQuiet: true) { _ in }
        let sale = Sale(
            settings: settings,
            tools: tools,
            basis: .stores(shop),
            console: console,
            eventLoop: group.next(),
            interruption: interruption
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

    private struct Folder {
        let url: URL

        init() throws {
            url = FileManager.default.temporaryDirectory.appendingPathComponent("flash-sale-test-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        }

        func path(_ name: String) -> String { url.appendingPathComponent(name).path }

        func file(_ name: String) -> String {
            if !FileManager.default.fileExists(atPath: path(name)) { _ = FileManager.default.createFile(atPath: path(name), contents: nil) }
            return path(name)
        }

        func stack() throws -> String {
            let text = """
                #!/bin/sh
                cd '\(url.path)'
                echo "$@" >> calls
                if [ "$*" = "leader postgres" ]; then echo postgres-2; exit; fi
                echo SERVER STATE PID; echo order-1 running 4711; echo redis running 4712; echo postgres running 4714; echo postgres-2 running 4713

                """
            try text.write(toFile: path("stack"), atomically: true, encoding: .utf8)
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path("stack"))
            return path("stack")
        }

        var calls: [String] {
            ((try? String(contentsOfFile: path("calls"), encoding: .utf8)) ?? "").split(separator: "\n").map(String.init)
        }

        func remove() {
            try? FileManager.default.removeItem(at: url)
        }
    }
}
