import ArgumentParser
import FlashSaleKit

/// What goes wrong meanwhile.
struct FaultOptions: ParsableArguments {
    @Option(help: "Redis is taken away: START..END or START+LENGTH. May be given several times.") var outage: [String] = []
    @Option(help: "How: kill or pause.") var outageKind = "kill"
    @Option(help: "A server of the stack is killed and started again, such as product@5s..6s. May be given several times.") var kill:
        [String] = []
    @Flag(help: "Do not keep units for what comes after an outage: the machine's own pace throughout.") var unbudgeted = false

    func fill(_ settings: inout SaleSettings) throws {
        guard let kind = Disruption.Kind(rawValue: outageKind) else {
            throw PlanError("--outage-kind is kill or pause, not '\(outageKind)'")
        }
        settings.disruptions =
            try outage.map { try Disruption(server: "redis", kind: kind, span: $0) } + kill.map { try Disruption(kill: $0) }
        settings.isUnbudgeted = unbudgeted
    }
}
