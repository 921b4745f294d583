import ArgumentParser
import FlashSaleKit
import Foundation

/// What is told of the sale, and where.
struct OutputOptions: ParsableArguments {
    @Option(help: "The percentiles of the table and the report.") var percentiles = "50,90,99,99.9,99.99"
    @Option(help: "The length of one interval in the report's lines.") var interval = "1s"
    @Option(
        help: ArgumentHelp("The figures as JSON; - for standard output, where the rest then goes to standard error.", valueName: "file")
    ) var json: String?
    @Option(help: ArgumentHelp("The sale as one self-contained page.", valueName: "file")) var html: String?
    @Option(help: ArgumentHelp("One JSON object a line for each interval, with its histogram.", valueName: "file")) var ndjson: String?
    @Option(help: ArgumentHelp("The intervals as a table for a spreadsheet.", valueName: "file")) var csv: String?
    @Option(help: ArgumentHelp("The latencies as HdrHistogram's percentile distribution.", valueName: "file")) var hgrm: String?
    @Option(
        help:
            "Thresholds separated by commas, such as 'p99<50ms,p99.9.confirmed<=80ms,errors<0.1%,rate>=95%,oversold=0,generator=ok'; each kind has its exit status."
    ) var require: String?
    @Option(help: "How many times to hold the sale. With more than one, --json has every run and the medians.") var `repeat` = 1
    @Flag(help: "No live line and no story: the table and the audit alone.") var quiet = false

    func fill(_ settings: inout SaleConfiguration) throws {
        settings.interval = try Duration(span: interval)
        guard settings.interval >= .milliseconds(100) else { throw PlanError("--interval is at least 100ms") }
        try check("repeat", self.repeat, 1...1_000)
        _ = try SaleReport.percentiles(percentiles)
        _ = try requirements()
    }

    func requirements() throws -> [Requirement] {
        try require.map { try Requirement.list($0) } ?? []
    }

    /// Opens everything that will be written.
    func open() throws -> Outputs {
        Outputs(
            json: try json.flatMap { $0 == "-" ? nil : try OutputFile($0) },
            html: try html.map { try OutputFile($0) },
            ndjson: try ndjson.map { try OutputFile($0) },
            csv: try csv.map { try OutputFile($0) },
            hgrm: try hgrm.map { try OutputFile($0) },
            isJSONOnStandardOutput: json == "-"
        )
    }
}

/// The files of a run, open from before it.
struct Outputs {
    let json: OutputFile?
    let html: OutputFile?
    let ndjson: OutputFile?
    let csv: OutputFile?
    let hgrm: OutputFile?
    let isJSONOnStandardOutput: Bool

    /// Writes one sale's lines (NDJSON), page, table (CSV) and histogram. The lines of several sales follow each other; each other file shows the last sale
    /// alone.
    func write(_ report: SaleReport, isFirst: Bool) throws {
        if isFirst { try ndjson?.write(report.ndjson()) } else { try ndjson?.append(report.ndjson()) }
        try html?.write(report.html())
        try csv?.write(report.csv())
        try hgrm?.write(report.hgrm())
    }

    /// Writes the figures of all runs.
    func write(json data: Data) throws {
        try json?.write(data)
        if isJSONOnStandardOutput { try FileHandle.standardOutput.write(contentsOf: data + Data("\n".utf8)) }
    }
}
