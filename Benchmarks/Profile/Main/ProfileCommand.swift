import ArgumentParser
import CommandShell
import Foundation
import ProfileKit

/// `profile`, which scripts/profile feeds.
@main
struct ProfileCommand: ProgramCommand {
    static let configuration = CommandConfiguration(
        commandName: "profile",
        abstract:
            "Draws a flame graph of what `perf script -F comm,ip,sym` printed, and lists the functions with the most time of their own.",
        discussion: "Exit status: 0; 1 there is no sample, or a file cannot be read or written; 2 wrong usage."
    )

    @Argument(help: "What perf printed, with demangled names.") var samples: String
    @Option(help: "What was measured: the drawing's title.") var title: String
    @Option(help: "The file of the drawing. (default: none is made)") var svg: String?
    @Option(help: "How many functions are listed.") var top = 10

    func run() async throws {
        let bytes = try Data(contentsOf: URL(fileURLWithPath: samples))
        let read = StackSamples(perfScript: String(decoding: bytes, as: UTF8.self))
        guard read.root.total > 0 else { throw ValidationFailure(description: "\(samples) has no sample") }
        if let svg { try Data(FlameGraph(title: title, read).svg.utf8).write(to: URL(fileURLWithPath: svg)) }
        print("\(title): \(read.root.total) samples")
        for (name, own) in read.top(max(0, top)) {
            print(String(format: "%5.1f %%  ", 100 * Double(own) / Double(read.root.total)) + name.prefix(140))
        }
    }

    private struct ValidationFailure: Error, CustomStringConvertible {
        let description: String
    }
}
