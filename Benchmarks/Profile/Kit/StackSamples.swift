/// What a sampling profiler saw: how often each stack of calls was on a processor.
public struct StackSamples: Sendable {
    /// A function, with all that was seen in it.
    public final class Frame: Sendable {
        /// The function's name; empty for the root.
        public let name: String
        /// Samples in it or in what it called.
        public let total: Int
        /// Samples in itself.
        public let own: Int
        /// What it called, the name first in the alphabet first.
        public let callees: [Frame]

        init(name: String, total: Int, own: Int, callees: [Frame]) {
            self.name = name
            self.total = total
            self.own = own
            self.callees = callees
        }
    }

    private final class Building {
        var own = 0
        var callees: [String: Building] = [:]

        /// The depth is bounded by ``StackSamples/maximumDepth``.
        func frame(_ name: String) -> Frame {
            let callees = self.callees.sorted { $0.key < $1.key }.map { $1.frame($0) }
            return Frame(name: name, total: callees.reduce(own) { $0 + $1.total }, own: own, callees: callees)
        }
    }

    /// Calls that are kept of one stack: the outermost ones.
    public static let maximumDepth = 200

    /// All of it.
    public let root: Frame

    /// Reads what `perf script -F comm,ip,sym` prints: for each sample a line that begins with the command's name, then its calls, the innermost first, each on a line that begins
    /// with a blank, then an empty line. Lines that say something else are passed over.
    /// - Parameter text: with demangled names.
    public init(perfScript text: String) {
        let root = Building()
        var calls: [Substring] = []
        func end() {
            guard !calls.isEmpty else { return }
            var at = root
            for call in calls.reversed().prefix(StackSamples.maximumDepth) {
                let name = String(call)
                let next = at.callees[name] ?? Building()
                at.callees[name] = next
                at = next
            }
            at.own += 1
            calls = []
        }
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            guard line.first?.isWhitespace ?? false else {
                end()
                continue
            }
            // The address, a blank, the name.
            let rest = line.drop { $0.isWhitespace }
            guard let blank = rest.firstIndex(of: " ") else { continue }
            let name = rest[rest.index(after: blank)...]
            if !name.isEmpty { calls.append(name) }
        }
        end()
        self.root = root.frame("")
    }

    /// The functions with the most samples of their own, the most first; names in the order of the alphabet where they have as many.
    public func top(_ count: Int) -> [(name: String, own: Int)] {
        var sums: [String: Int] = [:]
        func add(_ frame: Frame) {
            sums[frame.name, default: 0] += frame.own
            for callee in frame.callees { add(callee) }
        }
        add(root)
        return sums.filter { $0.value > 0 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.prefix(count).map {
            (name: $0.key, own: $0.value)
        }
    }
}
