import Glibc
import Testing

@testable import ServerKit

@Suite struct LogOutputTests {
    /// A pipe, with its two ends closed at the end.
    private func withPipe(_ body: (_ reader: Int32, _ writer: Int32) throws -> Void) throws {
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        try body(ends[0], ends[1])
    }

    private func line(_ number: Int) -> [UInt8] { Array("line \(number) \(String(repeating: "x", count: 100))\n".utf8) }

    /// Reads until this text was there, and returns all that was read.
    private func read(_ reader: Int32, until text: String) -> String {
        var (all, buffer) = ([UInt8](), [UInt8](repeating: 0, count: 65_536))
        while true {
            let count = Glibc.read(reader, &buffer, buffer.count)
            guard count > 0 else { break }
            all += buffer.prefix(count)
            if String(decoding: all, as: UTF8.self).contains(text) { break }
        }
        return String(decoding: all, as: UTF8.self)
    }

    @Test func linesLeaveInTheirOrder() throws {
        try withPipe { reader, writer in
            let output = LogOutput(writer)
            for number in 0..<1_000 { output.write(line(number)) }
            let text = read(reader, until: "line 999 ")
            let numbers = text.split(separator: "\n").compactMap { $0.split(separator: " ").dropFirst().first.flatMap { Int($0) } }
            #expect(numbers.starts(with: 0..<999))
            #expect(output.dropped == 0)
            output.flush(within: .seconds(10))
        }
    }

    /// Nobody reads. Were the lines written by their callers, this test would not end.
    @Test(.timeLimit(.minutes(1)))
    func aPipeThatNobodyReadsStopsNobody() throws {
        try withPipe { reader, writer in
            let output = LogOutput(writer)
            // The pipe has room for some 600 lines.
            for number in 0..<LogOutput.maximumLines * 3 { output.write(line(number)) }
            output.flush(within: .milliseconds(10))
            let dropped = output.dropped
            #expect(dropped > UInt64(LogOutput.maximumLines))
            // Once it is read again, the lines that waited come, and how many are missing.
            var text = read(reader, until: "lines of the log were dropped")
            #expect(text.contains("\(dropped) lines of the log were dropped: nobody read them for a while\n"))
            output.write(line(-1))
            text += read(reader, until: "line -1 ")
            let lines = text.split(separator: "\n").filter { $0.hasPrefix("line ") }
            #expect(UInt64(lines.count) + dropped == UInt64(LogOutput.maximumLines * 3 + 1))
            #expect(output.dropped == dropped)
        }
    }

    @Test func aLongLineIsCut() throws {
        try withPipe { reader, writer in
            let output = LogOutput(writer)
            output.write(Array(repeating: 0x61, count: 1_000_000) + [0x0A])
            let text = read(reader, until: "\n")
            #expect(text.utf8.count == LogOutput.maximumBytes)
            #expect(text.hasSuffix("… (cut)\n"))
        }
    }
}
