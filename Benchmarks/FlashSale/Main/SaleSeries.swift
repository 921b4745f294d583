import FlashSaleKit
import Foundation
import NIOCore

/// The sales of one command, one after the other. What one of them showed is told and written, whatever becomes of the files and of the next sale.
struct SaleSeries: Sendable {
    let settings: SaleConfiguration
    let tools: FaultTools
    let basis: AuditBasis
    let console: Console
    let eventLoop: any EventLoop
    let count: Int
    let percentiles: [Double]
    let requirements: [Requirement]
    let outputs: Outputs

    /// Holds them, until one could not be held or was interrupted, and returns the exit status.
    /// - Throws: why the first could not be opened. Then there is nothing to tell.
    func hold(_ interruption: Interruption) async throws -> Int32 {
        var runs: [SaleReport] = []
        var problems: [String] = []
        var failure: String?
        for number in 1...count where !(number > 1 && interruption.isSet) {
            if count > 1 { console.line("== run \(number) of \(count)") }
            var chosen = settings
            // Another run of the same seed would ask nothing new of the servers.
            chosen.seed = settings.seed &+ UInt64(number - 1)
            do {
                let report = try await hold(chosen, interruption)
                runs.append(report)
                failure = report.failure
            } catch  where number > 1 {
                failure = interruption.isSet ? nil : String(describing: error)
                break
            }
            guard let report = runs.last else { break }
            tell(report.audit, console: console)
            let unwritten = outputs.write(report, isFirst: number == 1)
            for problem in unwritten { complain(problem) }
            problems += unwritten
            if let page = outputs.html, page.path != "-", !unwritten.contains(where: { $0.hasPrefix(page.path) }) {
                console.line("report: \(page.path)")
            }
            if failure != nil { break }
        }
        if let failure { complain(failure) }
        let unwritten = outputs.write(json: count == 1 ? try runs[0].json() : try SaleReport.json(of: runs, failure: failure))
        for problem in unwritten { complain(problem) }
        problems += unwritten
        if runs.count > 1 { for line in SaleReport.medians(of: runs) { console.line(line) } }
        return status(runs, isHeld: failure == nil && problems.isEmpty, wasInterrupted: interruption.isSet)
    }

    private func hold(_ settings: SaleConfiguration, _ interruption: Interruption) async throws -> SaleReport {
        let started = Date.now
        let sale = Sale(settings: settings, tools: tools, basis: basis, console: console, eventLoop: eventLoop, interruption: interruption)
        let report = SaleReport(
            try await sale.measured(),
            percentiles: percentiles,
            requirements: requirements,
            metadata: RunMetadata.json(settings, audit: basis.name, started: started)
        )
        console.line("")
        for line in report.table { console.line(line) }
        return report
    }

    /// The status of the worst that happened.
    private func status(_ runs: [SaleReport], isHeld: Bool, wasInterrupted: Bool) -> Int32 {
        if wasInterrupted { return Status.interrupted }
        if runs.contains(where: { !$0.passes }) { return Status.auditFailed }
        // A sale without the faults that were asked for has not shown what it was to show.
        if !isHeld || runs.contains(where: { !$0.faultsMissed.isEmpty }) { return Status.unavailable }
        // A sale in which nothing was sold has failed, even though its books agree.
        if runs.contains(where: \.hasSoldNothing) {
            console.line("no order was confirmed: the servers sold nothing")
            return Status.unavailable
        }
        if let missed = runs.lazy.compactMap(\.firstMissed).first { return Status.missed(missed) }
        return Status.pass
    }

    /// On standard error, whatever takes the rest.
    private func complain(_ problem: String) {
        try? FileHandle.standardError.write(contentsOf: Data("flash-sale: \(problem)\n".utf8))
    }
}
