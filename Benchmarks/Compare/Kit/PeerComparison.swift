public import FlashSaleKit
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import PrivateServers
import Synchronization

/// Measures the project beside its peers, round by round, and sums up.
///
/// Peer and project take turns with the same load generator, Redis and PostgreSQL; the order turns around with every round. Round 0 warms up: connections,
/// caches, the first pages of every table. It is checked, not counted.
/// Bounds: `rounds` times the assignments times their connections, each of `duration` and a check with a deadline.
public struct PeerComparison: Sendable {
    /// What is measured and how.
    public struct Plan: Sendable {
        /// How often everything is measured.
        public var rounds = 3
        /// Length of one run.
        public var duration = Duration.seconds(4)
        /// Length of one run of the round that warms up.
        public var warmUp = Duration.seconds(1)
        /// Beginnings of names, such as `order StockGate`; empty for everything.
        public var only: [String] = []
        /// Whether something is killed under load at the end, to see what each side loses.
        public var kills = true

        /// Three rounds of four seconds.
        public init() {}

        /// One short round: shows that it works, not how fast it is.
        public static var quick: Plan {
            var plan = Plan()
            plan.rounds = 1
            plan.duration = .seconds(1)
            return plan
        }

        var assignments: [Assignment] { Assignment.selected(only) }

        /// Whether the load generator itself is measured beside wrk.
        public var measuresGenerator: Bool { measures("generator") }

        /// Whether the cost of a request is measured with many products and many servers.
        public var measuresGrowth: Bool { measures("growth") }

        private func measures(_ name: String) -> Bool { only.isEmpty || only.contains { !$0.isEmpty && name.hasPrefix($0.lowercased()) } }

        /// Why the plan cannot be carried out; nil if it can.
        public var problem: String? {
            if !(1...99).contains(rounds) { return "--rounds is 1 to 99" }
            if !(1...999).contains(duration.inSeconds) { return "--seconds is 1 to 999" }
            if assignments.isEmpty, !measuresGenerator, !measuresGrowth {
                return "--only names no work; they are: generator, growth, " + Assignment.all.map(\.name).joined(separator: ", ")
            }
            return nil
        }

        /// The runs of one round in their order: `[assignment, connections]`, turned around in every second round.
        func runs(round: Int, without missing: Set<Side>) -> [(assignment: Assignment, clients: Int)] {
            let forward = assignments.filter { !missing.contains($0.side) }.flatMap { one in one.clients.map { (one, $0) } }
            return round % 2 == 0 ? forward.reversed() : forward
        }
    }

    private let plan: Plan
    private let files: String
    private let binaries: String
    private let stack: StackScript
    private let tell: @Sendable (String) -> Void

    /// - Parameters:
    ///   - stack: the script that owns the servers, which are up.
    ///   - files: the folder of the peers' files, absolute.
    ///   - binaries: where `product-server` and `order-server` are.
    ///   - tell: takes a line of what is being done.
    public init(_ plan: Plan, stack: StackScript, files: String, binaries: String, tell: @escaping @Sendable (String) -> Void) {
        self.plan = plan
        self.stack = stack
        self.files = files
        self.binaries = binaries
        self.tell = tell
    }

    /// Starts the peers, measures, ends the peers.
    /// - Throws: what went wrong first: a server, a wrong answer, books that do not agree.
    public func run() async throws -> PeerResult {
        let machine = Machine.here
        let started = Date()
        let environment = try await stack.environment()
        tell("the peers")
        let peers = try await PeerStand.start(files: files, environment: environment)
        var plain: ChildProcess?
        do {
            let (process, port) = try await startPlainOrders(environment)
            plain = process
            let bench = try await bench(environment, peers, process, port)
            let result = try await measure(bench, machine: machine, started: started, missing: peers.missing)
            await bench.close()
            await process.end()
            await peers.end()
            return result
        } catch {
            await plain?.end()
            await peers.end()
            throw error
        }
    }

    private func bench(_ environment: [String: String], _ peers: PeerStand, _ plain: ChildProcess, _ plainPort: Int) async throws -> Bench {
        func setting(_ name: String) throws -> String {
            guard let value = environment[name] else { throw PlanError("\(name) is not set: scripts/stack env prints it") }
            return value
        }
        let group = MultiThreadedEventLoopGroup.singleton
        func caller(_ url: String) async throws -> HTTPCaller {
            try await HTTPCaller.make(endpoint: try HTTPEndpoint(url), eventLoop: group.next(), timeout: .seconds(30))
        }
        return Bench(
            files: files,
            environment: environment,
            peers: peers,
            plainOrders: plain,
            plainPort: plainPort,
            books: try StoreReader(
                productDatabase: try setting("PRODUCT_DATABASE_URL"),
                orderDatabase: try setting("ORDER_DATABASE_URL"),
                redisURL: try setting("REDIS_URL"),
                eventLoopGroup: group
            ),
            product: try await caller("http://127.0.0.1:\(try setting("PRODUCT_PORT"))"),
            productAdmin: try await caller(try setting("PRODUCT_ADMIN_URL")),
            orderAdmin: try await caller(try setting("ORDER_ADMIN_URL")),
            loadLoop: MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        )
    }

    /// An order server beside the stack's, with events off.
    private func startPlainOrders(_ environment: [String: String]) async throws -> (ChildProcess, Int) {
        let port = try LoopbackPort.free()
        let server = ServerStart(
            name: "order",
            folder: "order-bare",
            port: port,
            adminPort: try LoopbackPort.free()
        )
        var settings = environment
        settings["EVENT_LIMIT"] = "0"
        let process = try await server.start(settings, without: ["REDIS_URL", "PRODUCT_DATABASE_URL"], binaries: binaries)
        return (process, port)
    }

    private func measure(_ bench: Bench, machine: Machine, started: Date, missing: [Side: String]) async throws -> PeerResult {
        var samples: [Sample] = []
        var relays: [PeerResult.Relay] = []
        // Far from the ids of the servers' own orders, and whole numbers in every language's floating point.
        var firstKey: UInt64 = 1_000_000_000_000
        for round in 0...plan.rounds {
            tell(round == 0 ? "warming up" : "round \(round) of \(plan.rounds)")
            for (assignment, clients) in plan.runs(round: round, without: Set(missing.keys)) {
                try Task.checkCancellation()
                firstKey += 1_000_000_000
                let turn = Bench.Turn(
                    clients: clients,
                    round: round,
                    duration: round == 0 ? plan.warmUp : plan.duration,
                    firstKey: firstKey
                )
                let outcome = try await bench.run(assignment, turn)
                guard round > 0 else { continue }
                samples += outcome.samples
                if let relay = outcome.relay { relays.append(relay) }
                for sample in outcome.samples { tell(sample.line) }
            }
        }
        let generator = plan.measuresGenerator ? try await measureGenerator(folder: bench.environment["STACK_DIR"] ?? "") : nil
        let losses = plan.kills ? try await lose(bench, missing: Set(missing.keys), firstKey: firstKey) : []
        var result = PeerResult(
            started: started,
            machine: machine,
            settings: PeerResult.Settings(
                rounds: plan.rounds,
                secondsEach: plan.duration.inSeconds,
                configuration: "default: order events, idempotency keys and metrics on",
                isPartial: !plan.only.isEmpty
            ),
            samples: samples,
            relays: relays,
            missing: missing.values.sorted(),
            losses: losses
        )
        result.generator = generator
        if plan.measuresGrowth {
            let growth = GrowthComparison(
                bench: bench,
                plan: plan,
                stack: stack,
                binaries: binaries,
                firstKey: firstKey + 1_000_000_000_000,
                tell: tell
            )
            result.growth = try await growth.run()
        }
        return result
    }

    private func measureGenerator(folder: String) async throws -> GeneratorResult {
        tell("the load generator")
        let comparison = GeneratorComparison(
            rounds: plan.rounds,
            seconds: max(1, Int(plan.duration.inSeconds)),
            files: files,
            binaries: binaries,
            folder: "\(folder)/generator"
        )
        return try await comparison.run(tell: tell)
    }

    /// The kills come last: they leave pools and caches as no measured run should find them.
    private func lose(_ bench: Bench, missing: Set<Side>, firstKey: UInt64) async throws -> [Loss] {
        tell("kills under load")
        var losses: [Loss] = []
        for (index, run) in LossRun.all.filter({ !missing.contains($0.side) }).enumerated() {
            try Task.checkCancellation()
            let turn = Bench.Turn(
                clients: 32,
                round: 0,
                duration: .seconds(2),
                firstKey: firstKey + UInt64(index + 1) * 1_000_000_000
            )
            let loss = try await bench.lose(run, turn, stack: stack)
            losses.append(loss)
            tell("   \(run.side.rawValue), \(run.casualty.rawValue) killed: missing \(loss.missing), sold twice \(loss.soldTwice)")
        }
        return losses
    }
}
