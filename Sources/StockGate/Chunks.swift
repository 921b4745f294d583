/// Consecutive parts of an array.
struct Chunks<Element>: Sequence, IteratorProtocol {
    private var rest: ArraySlice<Element>
    private let size: Int

    init(_ elements: [Element], of size: Int) {
        self.rest = elements[...]
        self.size = size
    }

    mutating func next() -> ArraySlice<Element>? {
        guard !rest.isEmpty else { return nil }
        defer { rest = rest.dropFirst(size) }
        return rest.prefix(size)
    }
}
