import StockContract
import Testing

@Suite("Ids of cells") struct ProductIDsTests {
    @Test("ranges, single ids and exclusions; the name is the first range's")
    func read() throws {
        let ids = try ProductIDs(" 5, 10-20 ,1000000-,!12")
        #expect(ids.name == "10-20")
        for id: Int64 in [5, 10, 11, 20, 1_000_000, .max] { #expect(ids.contains(id), "\(id)") }
        for id: Int64 in [1, 4, 6, 9, 12, 21, 999_999] { #expect(!ids.contains(id), "\(id)") }
        #expect(try ProductIDs("7").name == "7")
        #expect(try ProductIDs("1000000-").name == "1000000-")
        #expect(try ProductIDs("5,1-999999").name == ProductIDs("1-999999").name, "a product that comes changes no name")
        #expect(try ProductIDs("1-999999,!5").name == "1-999999", "nor one that goes")
    }

    @Test(
        "what is no set of ids is refused, and the refusal repeats nothing of it",
        arguments: [
            "", " ", "0-5", "5-5", "9-3", "a-9", "1-hidden", "-9", "1-2,", "01-9", "1--9", "9223372036854775808-", "1-99999999999999999999",
            "5,5",
            "1-10,10-20", "!5", "1-9,!10", "1-9,5,!5", "1-9,!5,!5", "1-9,!", "+1-9", "1-9;", "١-٩",
        ]
    )
    func refused(text: String) {
        let refusal = #expect(throws: ProductIDs.Refusal.self) { try ProductIDs(text) }
        #expect(refusal?.words.contains("hidden") == false)
    }

    @Test("neither parts nor cells are unbounded")
    func bounds() throws {
        let most = (1...Int64(ProductIDs.maximumParts)).map(String.init).joined(separator: ",")
        #expect(try ProductIDs(most).singles.count == ProductIDs.maximumParts)
        #expect(throws: ProductIDs.Refusal.self) { try ProductIDs(most + ",1001") }
        let cells = try (0..<Int64(CellMap.maximumCells)).map { try ProductIDs("\($0 * 10 + 1)-\($0 * 10 + 10)") }
        #expect(try CellMap(cells).cell(of: 640) == 63)
        #expect(throws: ProductIDs.Refusal.self) { try CellMap(cells + [try ProductIDs("641-650")]) }
    }

    @Test("a single id wins over the range that holds it, and every id is in one segment", arguments: 0..<200)
    func map(seed: UInt64) throws {
        var random = Random(seed: seed)
        // Disjoint ranges in a small space, with gaps, and single ids anywhere.
        var texts = ["", "", ""]
        var next: Int64 = Int64.random(in: 1...4, using: &random)
        var wide: [(ClosedRange<Int64>, Int)] = []
        while next < 60 {
            let high = next + Int64.random(in: 1...9, using: &random)
            let cell = Int.random(in: 0..<3, using: &random)
            wide.append((next...high, cell))
            texts[cell] += ",\(next)-\(high)"
            next = high + Int64.random(in: 1...5, using: &random)
        }
        if Bool.random(using: &random) {
            wide.append((next...Int64.max, 1))
            texts[1] += ",\(next)-"
        }
        var singles: [Int64: Int] = [:]
        for _ in 0..<8 {
            let id = Int64.random(in: 1...80, using: &random)
            guard singles[id] == nil else { continue }
            let cell = Int.random(in: 0..<3, using: &random)
            singles[id] = cell
            texts[cell] += ",\(id)"
        }
        let present = texts.indices.filter { !texts[$0].isEmpty }
        let map = try CellMap(present.map { try ProductIDs(texts[$0].dropFirst()) })
        for id in Array<Int64>(1...100) + [.max] {
            let expected = singles[id] ?? wide.first { $0.0.contains(id) }?.1
            #expect(map.cell(of: id).map { present[$0] } == expected, "\(id) in \(texts)")
        }
        #expect(map.segments.first?.ids.lowerBound == 1 && map.segments.last?.ids.upperBound == .max)
        #expect(zip(map.segments, map.segments.dropFirst()).allSatisfy { $0.ids.upperBound + 1 == $1.ids.lowerBound && $0.cell != $1.cell })
    }

    @Test(
        "what two cells claim is refused",
        arguments: [["1-10", "10-20"], ["1-10", "3-4"], ["1-", "9-12"], ["1-10,15", "11-20,15"], ["1-9,!3", "10-"]]
    )
    func claimedTwice(texts: [String]) throws {
        let cells = try texts.map { try ProductIDs($0) }
        #expect(throws: ProductIDs.Refusal.self) { try CellMap(cells) }
    }

    @Test("ids at both ends of their range")
    func ends() throws {
        let map = try CellMap([try ProductIDs("1-999999"), try ProductIDs("1000000-,1,\(Int64.max - 1)")])
        #expect([1, 2, 999_999, 1_000_000, .max - 1, .max].map { map.cell(of: $0) } == [1, 0, 0, 1, 1, 1])
        #expect(map.ids(of: nil).isEmpty)
        #expect(try CellMap([try ProductIDs("\(Int64.max)")]).ids(of: nil) == [1...(Int64.max - 1)])
    }
}
