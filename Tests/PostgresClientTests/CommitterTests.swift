import PostgresClient
import Testing

@Suite("Committer: batches, order, bounds")
struct CommitterTests {
    private func committer(capacity: Int = 100, maximumBatch: Int = 3) -> Committer<String> {
        Committer(capacity: capacity, maximumBatch: maximumBatch) { String($0.prefix(1)) }
    }

    @Test("nothing waits: nothing is sent")
    func empty() {
        var committer = committer()
        #expect(committer.connectionFreed() == [])
    }

    @Test("one waits: it goes alone, at once")
    func one() {
        var committer = committer()
        #expect(committer.arrived("a", isExempt: false) == .accepted)
        #expect(committer.connectionFreed() == ["a"])
        #expect(committer.count == 0)
    }

    @Test("all that waits goes together, in order, up to the bound")
    func batches() {
        var committer = committer()
        for member in ["a", "b", "c", "d"] { _ = committer.arrived(member, isExempt: false) }
        #expect(committer.connectionFreed() == ["a", "b", "c"])
        #expect(committer.connectionFreed() == ["d"])
    }

    @Test("a key goes in one batch at a time, and its repeats keep their order and their place")
    func repeats() {
        var committer = committer()
        for member in ["a1", "a2", "b1", "a3", "c1", "d1"] { _ = committer.arrived(member, isExempt: false) }
        #expect(committer.connectionFreed() == ["a1", "b1", "c1"])
        #expect(committer.connectionFreed() == ["a2", "d1"])
        #expect(committer.connectionFreed() == ["a3"])
        #expect(committer.count == 0)
    }

    @Test("a full queue refuses and counts; who was let in before is let in again")
    func capacity() {
        var committer = committer(capacity: 2)
        _ = committer.arrived("a", isExempt: false)
        _ = committer.arrived("b", isExempt: false)
        #expect(committer.arrived("c", isExempt: false) == .refused)
        #expect(committer.refused == 1)
        #expect(committer.arrived("d", isExempt: true) == .accepted)
        #expect(committer.count == 3)
    }

    @Test("a batch that fails for one member is halved until that one is alone; alone it fails")
    func retry() {
        var pieces = [["a", "b", "c", "bad", "d", "e", "f"]]
        var sent: [[String]] = []
        var failed: [String] = []
        while let piece = pieces.popLast() {
            guard piece.contains("bad") else {
                sent.append(piece)
                continue
            }
            switch Committer<String>.retry(piece) {
            case .fail(let member): failed.append(member)
            case .halves(let first, let second): pieces += [second, first]
            }
        }
        #expect(failed == ["bad"])
        #expect(sent.flatMap { $0 } == ["a", "b", "c", "d", "e", "f"])
        // The others stay together as far as they can.
        #expect(sent.count <= 3)
    }
}
