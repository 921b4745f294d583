import Foundation

/// What is attacked with, and how much of it.
public struct AttackPlan: Sendable {
    /// Parts of the attack.
    public enum Part: String, Sendable, CaseIterable {
        /// The framing table, and the odd requests through the gateway.
        case framing
        /// What the gateway must not open.
        case access
        /// Damaged and split requests.
        case fuzz
        /// Slow, silent, many and cut connections.
        case slow
    }

    /// Which parts.
    public var parts: Set<Part> = Set(Part.allCases)
    /// Rows of the framing table; empty for all.
    public var rows: Set<Int> = []
    /// True: every odd request takes all four ways through the gateway, and six requests of other buyers follow it. False: it takes one way to each server,
    /// and only requests for the same server follow.
    public var isThorough = true
    /// Damaged pipelines.
    public var damaged = 4_000
    /// Bytes from one place at which a whole request is split to the next.
    public var splitStride = 1
    /// Chooses the damage.
    public var seed: UInt64 = 1
    /// Connections cut during a request.
    public var resets = 36_000
    /// Idle connections at the same time.
    public var idle = 4_000
    /// Whether the attack waits until the servers have closed the idle connections.
    public var waitsForIdle = true
    /// How long an answer may take before it counts as missing.
    public var patience = Duration.seconds(2)
    /// What a slow machine, or a debug build, may add to bounds of time.
    public var slack = Duration.zero

    /// A plan with every part, at length.
    public init() {}

    /// A plan with the same checks and less of everything: a minute instead of ten.
    public static var short: AttackPlan {
        var plan = AttackPlan()
        plan.isThorough = false
        plan.damaged = 400
        plan.splitStride = 23
        plan.resets = 1_500
        plan.idle = 500
        plan.waitsForIdle = false
        plan.slack = .seconds(1)
        return plan
    }
}

/// An attack on running servers.
public struct Attack: Sendable {
    private let stand: Stand
    private let plan: AttackPlan

    /// - Parameters:
    ///   - stand: the servers
    ///   - plan: what is done
    public init(_ stand: Stand, _ plan: AttackPlan) {
        self.stand = stand
        self.plan = plan
    }

    /// Attacks.
    /// - Parameter progress: is told when a part has ended
    /// - Throws: if the servers or their stores cannot be used at all; what they do wrong is in the report
    public func run(progress: @Sendable (PartReport) -> Void = { _ in }) async throws -> AttackReport {
        // A write to a connection that was cut is an error to handle, not a death.
        signal(SIGPIPE, SIG_IGN)
        let run = String(UInt64(Date.now.timeIntervalSince1970 * 1000), radix: 36)
        let goods = try await Workers.run { [stand] in try stand.makeGoods(run: run) }
        // Far from the order ids that the order servers give.
        let base = 1_000_000_000_000 + Int64(Date.now.timeIntervalSince1970) % 1_000_000 * 1_000_000_000
        let requests = Requests(run: run, goods: goods, base: base, token: stand.token)
        let effects = try EffectReader(stand, requests)
        var report = AttackReport()
        do {
            for part in AttackPlan.Part.allCases where plan.parts.contains(part) {
                try await perform(part, requests, effects, &report, progress)
            }
        } catch {
            await effects.close()
            throw error
        }
        await effects.close()
        return report
    }

    private func perform(
        _ part: AttackPlan.Part,
        _ requests: Requests,
        _ effects: EffectReader,
        _ report: inout AttackReport,
        _ progress: @Sendable (PartReport) -> Void
    ) async throws {
        func add(_ part: PartReport) {
            report.parts.append(part)
            progress(part)
        }
        switch part {
        case .framing:
            try await stand.setPublicStock(true)
            let rows = FramingCases.all.filter { plan.rows.isEmpty || plan.rows.contains($0.number) }
            let framing = FramingPart(
                stand: stand,
                requests: requests,
                rows: rows,
                targets: Target.allCases,
                patience: plan.patience,
                slack: plan.slack,
                isThorough: plan.isThorough
            )
            let results = try await framing.run(effects)
            add(results.framing)
            add(results.odd)
            if plan.rows.isEmpty { report.table = MarkdownTable(results.table) }
        case .access: add(try await AccessPart(stand: stand, requests: requests).run(effects))
        case .fuzz:
            try await stand.setPublicStock(true)
            let fuzz = FuzzPart(
                stand: stand,
                requests: requests,
                seed: plan.seed,
                count: plan.damaged,
                splitStride: plan.splitStride,
                patience: plan.patience
            )
            add(try await fuzz.run(effects))
        case .slow:
            let size = SlowPart.Size(
                resets: plan.resets,
                idle: plan.idle,
                unreadBytes: 48 * 1024 * 1024,
                waitsForIdle: plan.waitsForIdle,
                slack: plan.slack
            )
            add(try await SlowPart(stand: stand, requests: requests, size: size).run())
        }
    }
}
