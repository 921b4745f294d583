import ArgumentParser
import Foundation
import FuzzKit

/// Each reader runs in a process of its own, so that a trap is told like any other violation: the child notes the number of its case before it runs it.
@main
struct FuzzCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fuzz",
        abstract:
            "Feeds odd bytes to each reader of outside input. Ends with status 1 at the first violation, and prints its seed and its bytes."
    )

    @Option(help: "How long to feed each reader, in seconds.")
    var seconds = 60

    @Option(help: "The seed. (default: the time of day)")
    var seed: UInt64?

    @Option(help: "Feed only this reader. The names are those that a run prints.")
    var reader: String?

    @Option(help: "Feed only these bytes, in hexadecimal digits.")
    var bytes: String?

    @Option(help: .hidden)
    var child: String?

    mutating func run() throws {
        let readers = Fuzz.readers.filter { self.reader == nil || $0.name == self.reader }
        guard !readers.isEmpty else { throw ValidationError("there is no such reader in this build; release builds have none") }
        if let bytes {
            guard let bytes = Fuzz.bytes(hex: bytes), readers.count == 1 else {
                throw ValidationError("--bytes needs --reader, and hexadecimal digits")
            }
            let what = readers[0].violation(bytes)
            print("\(readers[0].name): \(what ?? "holds")")
            if what != nil { throw ExitCode.failure }
            return
        }
        if let child { return try runChild(readers[0], notes: child) }
        for reader in readers { try runParent(reader) }
        print("FUZZ PASS")
    }

    // MARK: The parent

    private func runParent(_ reader: any FuzzReader) throws {
        let seed = self.seed ?? UInt64(Date().timeIntervalSince1970)
        let notes = FileManager.default.temporaryDirectory.appendingPathComponent("stockgate-fuzz-\(UUID().uuidString)")
        try Data(count: 16).write(to: notes)
        defer { try? FileManager.default.removeItem(at: notes) }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = ["--child", notes.path, "--reader", reader.name, "--seconds", "\(seconds)", "--seed", "\(seed)"]
        let began = ContinuousClock.now
        try process.run()
        // An endless loop is a violation like a trap: a case is a matter of milliseconds.
        var last: (at: [UInt64], since: ContinuousClock.Instant) = ([], began)
        while process.isRunning {
            Thread.sleep(forTimeInterval: 0.2)
            let at = Self.noted(notes)
            if at != last.at { last = (at, .now) }
            if ContinuousClock.now - last.since > .seconds(60), process.isRunning {
                process.terminate()
                process.waitUntilExit()
                throw broken(reader, at, "it does not end within a minute")
            }
        }
        process.waitUntilExit()
        let at = Self.noted(notes)
        if process.terminationReason == .uncaughtSignal {
            throw broken(reader, at, "the process ended by signal \(process.terminationStatus)")
        }
        guard process.terminationStatus == 0 else { throw ExitCode(1) }
        let took = max((ContinuousClock.now - began) / .seconds(1), 0.001)
        print("\(reader.name): \(at.last ?? 0) cases in \(Int(took)) s from seed \(seed), nothing violated (\(reader.what))")
    }

    private func broken(_ reader: any FuzzReader, _ at: [UInt64], _ what: String) -> ExitCode {
        let bytes = Fuzz.bytes(reader, seed: at[0], number: at[1])
        print("FUZZ BROKEN \(FuzzViolation(reader: reader.name, seed: at[0], number: at[1], bytes: bytes, what: what))")
        return ExitCode(1)
    }

    /// The seed and the number of the case under way.
    private static func noted(_ notes: URL) -> [UInt64] {
        let data = [UInt8]((try? Data(contentsOf: notes)) ?? Data())
        return [0, 8].map { start in (0..<8).reduce(0) { $0 | UInt64(start + $1 < data.count ? data[start + $1] : 0) << UInt64($1 * 8) } }
    }

    // MARK: The child

    private func runChild(_ reader: any FuzzReader, notes: String) throws {
        let file = open(notes, O_RDWR)
        guard file >= 0, let memory = mmap(nil, 16, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), memory != MAP_FAILED else {
            throw ValidationError("the notes cannot be written")
        }
        let seed = self.seed ?? 1
        memory.storeBytes(of: seed.littleEndian, as: UInt64.self)
        let end = ContinuousClock.now + .seconds(seconds)
        do throws(FuzzViolation) {
            let count = try Fuzz.run(reader, seed: seed) { number in
                memory.storeBytes(of: number.littleEndian, toByteOffset: 8, as: UInt64.self)
                return number % 64 == 0 && ContinuousClock.now >= end
            }
            memory.storeBytes(of: count.littleEndian, toByteOffset: 8, as: UInt64.self)
        } catch {
            print("FUZZ BROKEN \(error)")
            throw ExitCode(1)
        }
    }
}
