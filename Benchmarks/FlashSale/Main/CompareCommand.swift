import ArgumentParser
import FlashSaleKit
import Foundation

/// `flash-sale compare`.
struct CompareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flash-sale compare",
        abstract: "Compares two reports of --json, of one run or of several (--repeat) each.",
        discussion: """
            Medians, the intervals that hold them with 95 % (up to five runs: the smallest and the largest), their ratio, and a verdict: a figure has changed when \
            the intervals are apart and the medians differ by more than the noise.

            Exit status: 0 the second report is not worse, 2 wrong arguments or files, 9 the second report is worse.
            """
    )

    @Argument(help: "The report to compare with.") var first: String
    @Argument(help: "The report to judge.") var second: String
    @Option(help: "Differences up to this size are ignored.") var noise = "5%"

    func validate() throws {
        guard part != nil else { throw ValidationError("--noise: write a part such as 5%") }
    }

    private var part: Double? {
        guard noise.hasSuffix("%"), let value = Double(noise.dropLast()), value >= 0, value <= 1000 else { return nil }
        return value / 100
    }

    func run() throws {
        let files = try [first, second].map { path in
            guard let data = FileManager.default.contents(atPath: path) else { throw PlanError("\(path) cannot be read") }
            return data
        }
        let comparison = try Comparison(files[0], files[1], noise: part ?? 0)
        for line in comparison.lines { print(line) }
        if comparison.verdict == .worse { throw ExitCode(Status.worse) }
    }
}
