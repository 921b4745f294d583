// Which product ids belong to a cell: product servers that share one ledger and one Redis.
//
//   1-999999       a range, both ends included
//   1000000-       a range without an end
//   5              one id, which wins over another cell's range that holds it
//   !5             not this one, which another cell has (only for a cell's own servers)
//
// Bounds: `maximumParts` such parts of one cell, `CellMap.maximumCells` cells.

import APIErrors

/// The ids of one cell as its setting writes them, parts separated by commas.
package struct ProductIDs: Sendable, Equatable {
    /// The parts of one cell at most.
    package static let maximumParts = 1_000

    /// Why a text is refused. The words repeat nothing of it.
    package struct Refusal: Error, Equatable {
        /// What is wrong.
        package let words: String

        package init(_ words: String) { self.words = words }
    }

    /// Ranges of more than one id, in the order of the text.
    package let ranges: [ClosedRange<Int64>]
    /// Single ids.
    package let singles: Set<Int64>
    /// Ids of the ranges that another cell has.
    package let excluded: Set<Int64>
    /// The cell's name: its first range, or its first single id where it has no range. It stays the same while single products come and go.
    package let name: String

    /// Reads the parts of one cell.
    package init(_ text: some StringProtocol) throws(Refusal) {
        let parts = Substring(text).split(separator: ",", maxSplits: Self.maximumParts, omittingEmptySubsequences: false)
        guard parts.count <= Self.maximumParts else { throw Refusal("a cell has more than \(Self.maximumParts) ranges and ids") }
        var ranges: [ClosedRange<Int64>] = []
        var singles: Set<Int64> = []
        var excluded: Set<Int64> = []
        var firstSingle: Int64?
        for part in parts {
            var part = part.drop { $0 == " " }
            while part.last == " " { part.removeLast() }
            switch Self.part(part) {
            case .range(let range): ranges.append(range)
            case .single(let id):
                guard singles.insert(id).inserted else { throw Refusal("an id is named twice") }
                firstSingle = firstSingle ?? id
            case .excluded(let id):
                guard excluded.insert(id).inserted else { throw Refusal("an id is named twice") }
            case nil:
                throw Refusal("ids are ranges like 1-999999 or 1000000-, and single ids, from 1 to \(Int64.max), separated by commas")
            }
        }
        guard let name = ranges.first.map(Self.text) ?? firstSingle.map({ String($0) }) else { throw Refusal("a cell has no ids") }
        guard excluded.isDisjoint(with: singles), excluded.allSatisfy({ id in ranges.contains { $0.contains(id) } }) else {
            throw Refusal("an id behind ! must be in one of the ranges, and is not named without it")
        }
        guard !Self.overlap(ranges) else { throw Refusal("ranges overlap") }
        self.ranges = ranges
        self.singles = singles
        self.excluded = excluded
        self.name = name
    }

    /// Whether the cell has this product.
    package func contains(_ id: Int64) -> Bool {
        singles.contains(id) || (ranges.contains { $0.contains(id) } && !excluded.contains(id))
    }

    private enum Part {
        case range(ClosedRange<Int64>)
        case single(Int64)
        case excluded(Int64)
    }

    private static func part(_ text: Substring) -> Part? {
        if text.first == "!" { return Values.id(text.dropFirst()).map(Part.excluded) }
        guard let dash = text.firstIndex(of: "-") else { return Values.id(text).map(Part.single) }
        guard let low = Values.id(text[..<dash]) else { return nil }
        let end = text[dash...].dropFirst()
        guard let high = end.isEmpty ? Int64.max : Values.id(end), low < high else { return nil }
        return .range(low...high)
    }

    private static func text(_ range: ClosedRange<Int64>) -> String {
        range.upperBound == Int64.max ? "\(range.lowerBound)-" : "\(range.lowerBound)-\(range.upperBound)"
    }

    fileprivate static func overlap(_ ranges: [ClosedRange<Int64>]) -> Bool {
        let sorted = ranges.sorted { $0.lowerBound < $1.lowerBound }
        return zip(sorted, sorted.dropFirst()).contains { $0.upperBound >= $1.lowerBound }
    }
}

/// Finds a product's cell.
package struct CellMap: Sendable, Equatable {
    /// The cells at most.
    package static let maximumCells = 64

    /// Ids that follow one another and belong to one cell; nil: to none.
    package struct Segment: Sendable, Equatable {
        package let ids: ClosedRange<Int64>
        package let cell: Int?
    }

    /// All ids from 1 on, each in one segment, ascending.
    package let segments: [Segment]

    /// - Parameter cells: the ids of each cell
    /// - Throws: if two cells have an id in common for which the setting does not say which of them is meant
    package init(_ cells: [ProductIDs]) throws(ProductIDs.Refusal) {
        guard cells.count <= Self.maximumCells else { throw ProductIDs.Refusal("there are more than \(Self.maximumCells) cells") }
        guard cells.allSatisfy({ $0.excluded.isEmpty }) else {
            throw ProductIDs.Refusal("an id behind ! has no place here: name the id in the cell that has it")
        }
        guard !ProductIDs.overlap(cells.flatMap(\.ranges)) else { throw ProductIDs.Refusal("ranges of cells overlap") }
        var singles: [(id: Int64, cell: Int)] = []
        var ranges: [(ids: ClosedRange<Int64>, cell: Int)] = []
        for (index, cell) in cells.enumerated() {
            singles += cell.singles.map { (id: $0, cell: index) }
            ranges += cell.ranges.map { (ids: $0, cell: index) }
        }
        guard Set(singles.map(\.id)).count == singles.count else { throw ProductIDs.Refusal("an id is named in two cells") }
        singles.sort { $0.id < $1.id }
        ranges.sort { $0.ids.lowerBound < $1.ids.lowerBound }
        segments = Self.segments(singles[...], ranges[...])
    }

    /// Walks through all ids: each round ends one segment, at the next single id or at an end of the range.
    private static func segments(
        _ given: ArraySlice<(id: Int64, cell: Int)>,
        _ wide: ArraySlice<(ids: ClosedRange<Int64>, cell: Int)>
    ) -> [Segment] {
        var (singles, ranges) = (given, wide)
        var segments: [Segment] = []
        var next: Int64 = 1
        while true {
            while let range = ranges.first, range.ids.upperBound < next { ranges.removeFirst() }
            var end = Int64.max
            var cell: Int?
            if let single = singles.first, single.id == next {
                singles.removeFirst()
                (end, cell) = (next, single.cell)
            } else {
                if let range = ranges.first {
                    if range.ids.contains(next) {
                        (end, cell) = (range.ids.upperBound, range.cell)
                    } else {
                        // The range begins behind `next`, so this cannot fall below it.
                        end = range.ids.lowerBound - 1
                    }
                }
                // A single id that is left is behind `next`.
                if let single = singles.first, single.id <= end { end = single.id - 1 }
            }
            if let last = segments.last, last.cell == cell {
                segments[segments.count - 1] = Segment(ids: last.ids.lowerBound...end, cell: cell)
            } else {
                segments.append(Segment(ids: next...end, cell: cell))
            }
            guard end < Int64.max else { return segments }
            next = end + 1
        }
    }

    /// The number of the cell that has a product; nil: none has.
    package func cell(of id: Int64) -> Int? {
        var (low, high) = (0, segments.count)
        // Ends: each round halves what is left.
        while low < high {
            let middle = (low + high) / 2
            if segments[middle].ids.upperBound < id { low = middle + 1 } else { high = middle }
        }
        guard low < segments.count, segments[low].ids.contains(id) else { return nil }
        return segments[low].cell
    }

    /// The ids of one cell, or those of none.
    package func ids(of cell: Int?) -> [ClosedRange<Int64>] { segments.filter { $0.cell == cell }.map(\.ids) }
}
