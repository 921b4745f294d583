import ArgumentParser
import FlashSaleKit
import Foundation

/// What is told of the sale, and where.
struct OutputOptions: ParsableArguments {
    @Option(help: "The percentiles of the table and the report.") var percentiles = "50,90,99,99.9,99.99"
    @Option(help: "The length of one interval in the report's lines.") var interval = "1s"
    @Option(
        help: ArgumentHelp(
            "The figures as JSON. For this and each other file: - for standard output, where the rest then goes to standard error.",
            valueName: "file"
        )
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
        let named = [("--json", json), ("--html", html), ("--ndjson", ndjson), ("--csv", csv), ("--hgrm", hgrm)]
        var files: [String: OutputFile] = [:]
        for (name, path) in named {
            guard let path else { continue }
            let file = try OutputFile(path)
            for (other, earlier) in named.compactMap({ name, _ in files[name].map { (name, $0) } })
            where file.isSame(as: earlier) || path == "-" && earlier.path == "-" {
                throw PlanError("\(other) and \(name) are one file: each would write over the other")
            }
            files[name] = file
        }
        return Outputs(
            json: files["--json"],
            html: files["--html"],
            ndjson: files["--ndjson"],
            csv: files["--csv"],
            hgrm: files["--hgrm"]
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

    /// Whether the reader of standard output is a program, for which the rest would be noise.
    var isStandardOutputTaken: Bool { [json, html, ndjson, csv, hgrm].contains { $0?.path == "-" } }

    /// Writes one sale's lines (NDJSON), page, table (CSV) and histogram. The lines of several sales follow each other; each other file shows the last sale
    /// alone. Each is written, whatever becomes of the others.
    /// - Returns: what could not be written, and why.
    func write(_ report: SaleReport, isFirst: Bool) -> [String] {
        [
            Self.failure { if isFirst { try ndjson?.write(report.ndjson()) } else { try ndjson?.append(report.ndjson()) } },
            Self.failure { try html?.write(report.html()) },
            Self.failure { try csv?.write(report.csv()) },
            Self.failure { try hgrm?.write(report.hgrm()) },
        ].compactMap { $0 }
    }

    /// Writes the figures of all runs.
    func write(json data: @autoclosure () throws -> Data) -> [String] {
        let failure = Self.failure {
            guard let json else { return }
            try json.write(data() + Data(json.path == "-" ? "\n".utf8 : "".utf8))
        }
        return failure.map { [$0] } ?? []
    }

    private static func failure(_ write: () throws -> Void) -> String? {
        do {
            try write()
            return nil
        } catch {
            return String(describing: error)
        }
    }
}
