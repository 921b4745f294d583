import ArgumentParser
import FlashSaleKit
import NIOPosix

/// What goes wrong meanwhile.
struct FaultOptions: ParsableArguments {
    @Option(help: "Redis is taken away: START..END or START+LENGTH. May be given several times.") var outage: [String] = []
    @Option(help: "How --outage takes Redis away: kill or pause. (default: kill)") var outageKind: String?
    @Option(
        help: """
            A server of the stack is killed and started again, such as product@5s..6s. redis-master and postgres-primary are whoever takes writes when the moment comes. \
            May be given several times.
            """
    ) var kill: [String] = []
    @Option(
        help: ArgumentHelp(
            """
            SERVER:FAULT@WHEN, such as redis:pause@4s+2s, postgres:kill@30%+3s, redis:flush@5s, postgres:cut@50%, redis:slow=200ms@4s..9s. kill and pause: each server of \
            the stack. flush: redis. cut: redis and postgres, and every server with a proxy before it. slow, jitter=20ms, \
            bandwidth=64000 (bytes a second) and stall: every server with a proxy before it. May be given several times.
            """,
            valueName: "fault"
        )
    ) var fault: [String] = []
    @Option(
        help: ArgumentHelp(
            "NAME=FILE: the file, usually a named pipe, that a fault-proxy before this server reads its commands from.",
            valueName: "proxy"
        )
    )
    var proxy: [String] = []
    @Flag(help: "Sell at the machine's own pace throughout, without keeping units for the time after an outage.") var unbudgeted = false

    func fill(_ settings: inout SaleConfiguration) throws {
        guard outageKind == nil || !outage.isEmpty else { throw PlanError("--outage-kind is how --outage takes Redis away: give --outage") }
        let outageKind = self.outageKind ?? "kill"
        guard outageKind == "kill" || outageKind == "pause" else { throw PlanError("--outage-kind is kill or pause, not '\(outageKind)'") }
        settings.disruptions =
            try outage.map { try Disruption(server: "redis", kind: outageKind == "kill" ? .kill : .pause, span: $0) }
            + kill.map { try Disruption(kill: $0) } + fault.map { try Disruption(fault: $0) }
        _ = try proxies()
        settings.isUnbudgeted = unbudgeted
    }

    private func proxies() throws -> [String: String] {
        var files: [String: String] = [:]
        for text in proxy {
            guard let equals = text.firstIndex(of: "="), equals > text.startIndex, text.index(after: equals) < text.endIndex else {
                throw PlanError("--proxy: '\(text)' is no proxy: write redis=/path/to/pipe")
            }
            files[String(text[..<equals])] = String(text[text.index(after: equals)...])
        }
        return files
    }

    /// What the faults are made with.
    func tools(stack: StackScript?, environment: [String: String]) throws -> FaultTools {
        var tools = FaultTools(stack: stack, eventLoopGroup: MultiThreadedEventLoopGroup.singleton)
        tools.redisURL = environment["REDIS_URL"]
        tools.databases = ["PRODUCT_DATABASE_URL", "ORDER_DATABASE_URL"].compactMap { environment[$0] }
        tools.proxies = try proxies()
        return tools
    }
}
