import FlashSaleKit
import Foundation
import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix
import PrivateServers

/// Measures `flash-sale` beside `wrk`: each in turn sends for a while to an nginx that answers a constant, with as many threads and connections as the other.
///
/// Bounds: `rounds` times two runs of `seconds`, each of which is given up half a minute later.
struct GeneratorComparison {
    let rounds: Int
    /// Length of one run; wrk takes whole seconds.
    let seconds: Int
    /// The folder of the peers' files.
    let files: String
    /// Where `flash-sale` is.
    let binaries: String
    /// A folder for logs.
    let folder: String

    private static let clients = 128

    /// - Throws: `ChildProcess.Failure` for a program that is not there, does not start, or does not say what it has done.
    func run(tell: (String) -> Void) async throws -> GeneratorResult {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let port = try LoopbackPort.free()
        let configuration = try PeerStand.rendered(
            "\(files)/constant.conf",
            ["PORT": String(port), "DIRECTORY": folder],
            into: "\(folder)/nginx.conf"
        )
        let nginx = try ChildProcess(
            [try PeerStand.program("nginx"), "-p", folder, "-e", "stderr", "-c", configuration],
            environment: [:],
            log: "\(folder)/nginx.log"
        )
        do {
            try await answers(port, nginx)
            var result = GeneratorResult(wrk: [], flashSale: [])
            for round in 1...max(1, rounds) {
                result.wrk.append(try await wrk(port, round))
                result.flashSale.append(try await flashSale(port, round))
            }
            if let line = result.line { tell("   " + line) }
            await nginx.end()
            return result
        } catch {
            await nginx.end()
            throw error
        }
    }

    private var threads: String { String(max(1, min(2, ProcessInfo.processInfo.activeProcessorCount))) }

    private func wrk(_ port: Int, _ round: Int) async throws -> GeneratorResult.Run {
        let log = "\(folder)/wrk-\(round).log"
        let arguments = [
            try PeerStand.program("wrk"), "-t", threads, "-c", String(Self.clients), "-d", "\(seconds)s", "-s", "\(files)/keys.lua",
            "http://127.0.0.1:\(port)",
        ]
        let cpu = try await processorTime(of: arguments, log: log)
        let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        guard let (requests, seconds) = GeneratorResult.wrk(text), !text.contains("Non-2xx") else {
            throw ChildProcess.Failure(description: "wrk did not say what it has done: \(text.suffix(400))")
        }
        return GeneratorResult.Run(requests: requests, seconds: seconds, cpu: cpu)
    }

    private struct Report: Decodable {
        var sent: Int
        var confirmed: Int
    }

    private func flashSale(_ port: Int, _ round: Int) async throws -> GeneratorResult.Run {
        let report = "\(folder)/flash-sale-\(round).json"
        // `flash-sale` runs in a folder without a stack: in one with a stack it would ask that stack's servers for the product.
        let arguments = [
            "/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", folder, "\(binaries)/flash-sale", "--gateway", "http://127.0.0.1:\(port)",
            "--product", "7", "--no-audit", "--concurrency",
            String(Self.clients), "--threads", threads, "--duration", "\(seconds)s", "--json", report,
        ]
        let cpu = try await processorTime(of: arguments, log: "\(folder)/flash-sale-\(round).log")
        guard let data = FileManager.default.contents(atPath: report), let read = try? JSONDecoder().decode(Report.self, from: data),
            read.confirmed == read.sent, read.sent > 0
        else {
            throw ChildProcess.Failure(description: "flash-sale did not say what it has done: see \(folder)/flash-sale-\(round).log")
        }
        return GeneratorResult.Run(requests: read.sent, seconds: Double(seconds), cpu: cpu)
    }

    /// Runs a program to its end. Returns the processor time of all of this process's children that have ended meanwhile, in microseconds.
    private func processorTime(of arguments: [String], log: String) async throws -> Double {
        let before = Self.childrensTime()
        let child = try ChildProcess(arguments, environment: ["PATH": "/usr/bin:/bin"], log: log)
        let deadline = ContinuousClock.now + .seconds(seconds + 30)
        while child.isRunning {
            guard ContinuousClock.now < deadline, !Task.isCancelled else {
                await child.end()
                throw ChildProcess.Failure(description: "\(arguments[0]) did not end: \(child.lastLines)")
            }
            try? await Task.sleep(for: .milliseconds(20))
        }
        return Self.childrensTime() - before
    }

    private static func childrensTime() -> Double {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_CHILDREN.rawValue), &usage)
        return [usage.ru_utime, usage.ru_stime].map { Double($0.tv_sec) * 1e6 + Double($0.tv_usec) }.reduce(0, +)
    }

    private func answers(_ port: Int, _ nginx: ChildProcess) async throws {
        let caller = try await HTTPCaller.make(
            endpoint: try HTTPEndpoint("http://127.0.0.1:\(port)"),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            timeout: .seconds(2)
        )
        defer { caller.close() }
        let deadline = ContinuousClock.now + .seconds(30)
        while (try? await caller.call(.GET, "/"))?.status != 200 {
            guard nginx.isRunning, ContinuousClock.now < deadline else {
                throw ChildProcess.Failure(description: "nginx does not answer: \(nginx.lastLines)")
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }
}
