import Eventually
import Foundation
import PrivateServers
import Testing

@testable import FlashSaleKit

/// `flash-sale` as a process: what it prints, what it writes, and its exit status.
@Suite("The command", .timeLimit(.minutes(10)))
struct CommandTests {
    /// One run in a folder of its own, in which no stack script is found.
    private final class Run {
        let folder: URL
        private let process = Process()

        init(_ arguments: [String]) throws {
            let beside = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path
            folder = FileManager.default.temporaryDirectory.appendingPathComponent("flash-sale-run-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            process.executableURL = URL(
                fileURLWithPath: "\(ProcessInfo.processInfo.environment["STOCKGATE_BIN_DIR"] ?? beside)/flash-sale"
            )
            process.arguments = arguments
            process.environment = ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? ""]
            process.currentDirectoryURL = folder
            process.standardInput = FileHandle.nullDevice
            for name in ["out", "err"] { try Data().write(to: folder.appendingPathComponent(name)) }
            process.standardOutput = try FileHandle(forWritingTo: folder.appendingPathComponent("out"))
            process.standardError = try FileHandle(forWritingTo: folder.appendingPathComponent("err"))
            try process.runWithAllSignals()
        }

        deinit {
            if process.isRunning { kill(process.processIdentifier, SIGKILL) }
            try? FileManager.default.removeItem(at: folder)
        }

        func text(_ name: String = "out") -> String {
            (try? String(contentsOf: folder.appendingPathComponent(name), encoding: .utf8)) ?? ""
        }

        func json() throws -> [String: Any] {
            let data = try Data(contentsOf: folder.appendingPathComponent("report.json"))
            return try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any], "\(text()) \(text("err"))")
        }

        func send(_ signal: Int32) { kill(process.processIdentifier, signal) }

        func status() async throws -> Int32 {
            #expect(try await eventually { !process.isRunning }, "\(text()) \(text("err"))")
            return process.terminationStatus
        }
    }

    private func open(_ faults: Shop.Faults = Shop.Faults(), _ body: (String) async throws -> Void) async throws {
        let shop = Shop(faults: faults)
        let url = try await shop.open()
        do {
            try await body(url)
        } catch {
            await shop.close()
            throw error
        }
        await shop.close()
    }

    private func sale(_ url: String, _ more: [String]) -> [String] {
        ["--gateway", url, "--product-server", url, "--units", "30", "--concurrency", "4", "--threads", "1"] + more
    }

    @Test func aFullDiskHidesNoAudit() async throws {
        let files = ["--html", "/dev/full", "--csv", "/dev/full", "--hgrm", "/dev/full", "--ndjson", "/dev/full", "--json", "report.json"]
        for (drift, status) in [(Int64(3), Int32(1)), (0, 3)] {
            try await open(Shop.Faults(drift: drift)) { url in
                let audit = ["--audit", "http", "--product-admin", url, "--orders", "60", "--settle", "100ms"]
                let run = try Run(sale(url, audit + files))
                #expect(try await run.status() == status, "\(run.text("err"))")
                #expect(run.text().contains(drift == 0 ? "AUDIT PASS" : "AUDIT FAIL"), "\(run.text())")
                #expect(run.text("err").components(separatedBy: "/dev/full cannot be written").count == 5, "\(run.text("err"))")
                #expect(try run.json()["pass"] as? Bool == (drift == 0))
            }
        }
    }

    /// A signal is taken over once: the second sale must not lose it.
    @Test(arguments: [SIGINT, SIGTERM, SIGHUP])
    func aLaterRunCanBeInterruptedToo(signal: Int32) async throws {
        var before = sigaction()
        sigaction(signal, nil, &before)
        // Under `nohup` a hang-up is nobody's wish to end.
        let isIgnored = unsafeBitCast(before.__sigaction_handler.sa_handler, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
        guard signal != SIGHUP || !isIgnored else { return }
        try await open { url in
            let run = try Run(sale(url, ["--no-audit", "--duration", "2s", "--repeat", "500", "--json", "report.json"]))
            #expect(try await eventually { run.text().components(separatedBy: "sale opens").count > 2 })
            run.send(signal)
            #expect(try await run.status() == 130, "\(run.text("err"))")
            let runs = try #require(try run.json()["runs"] as? [[String: Any]])
            #expect(runs.count >= 2 && runs.count < 500)
            // A slow machine is told of the opening when that sale is over; then the next one ends before it opens.
            #expect(runs.last?["interrupted"] as? Bool == true || run.text("err").contains("interrupted"), "\(run.text("err"))")
        }
    }

    @Test func whatEarlierRunsShowedOutlivesALaterOne() async throws {
        try await open(Shop.Faults(makesAtMost: 2)) { url in
            let run = try Run(sale(url, ["--no-audit", "--orders", "60", "--repeat", "4", "--json", "report.json"]))
            #expect(try await run.status() == 3)
            #expect(run.text("err").contains("the product cannot be put on sale"))
            let json = try run.json()
            #expect((json["runs"] as? [Any])?.count == 2 && json["pass"] as? Bool == false && json["failure"] is String)
            #expect(run.text().contains("median of 2 runs"))
        }
    }

    @Test func standardOutputCanHaveTheTable() async throws {
        try await open { url in
            let run = try Run(sale(url, ["--no-audit", "--orders", "60", "--csv", "-"]))
            #expect(try await run.status() == 0)
            #expect(run.text().hasPrefix("at_s,seconds,") && run.text("err").contains("AUDIT NONE"))
            #expect(run.text("-").isEmpty)
        }
    }

    @Test(arguments: [
        (["--json", "x", "--html", "./x"], "--json and --html are one file"),
        (["--json", "-", "--csv", "-"], "--json and --csv are one file"),
        (["--in-flight", "5"], "--in-flight and --arrivals are of an open loop"), (["--arrivals", "even"], "of an open loop"),
        (["--audit", "http"], "--no-audit and --audit exclude each other"), (["--stages", "10s:0"], "--stages send nothing"),
        (["--cacert", "/nonexistent.pem"], "--cacert: /nonexistent.pem cannot be read: No such file"),
        (["--cacert", "/dev/null"], "no certificate"),
        (["--outage-kind", "pause"], "give --outage"), (["--cacert", "/x", "--insecure"], "choose"),
    ])
    func whatCannotBeMeantIsSaid(arguments: [String], words: String) async throws {
        let run = try Run(["--gateway", "http://127.0.0.1:1", "--no-audit"] + arguments)
        #expect(try await run.status() == 2)
        #expect(run.text("err").contains(words), "\(run.text("err"))")
    }

    @Test func theHelpHasEveryStatus() async throws {
        let run = try Run(["--help"])
        #expect(try await run.status() == 0)
        let words = run.text().split(whereSeparator: \.isWhitespace).joined(separator: " ")
        for part in ["nothing was sold", "a fault was never made", "a report could not be written", "130 interrupted"] {
            #expect(words.contains(part), "\(part)")
        }
    }
}
