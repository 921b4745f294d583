/// A set of field names with one bit for each length and first letter. A *no* is sure; a *yes* may be wrong, since names can share a bit.
struct NameSet: Sendable {
    private var bits: UInt64 = 0

    mutating func insert(length: Int, first: UInt8) { bits |= NameSet.bit(length, first) }

    func mayContain(_ name: StaticString) -> Bool { bits & NameSet.bit(name.utf8CodeUnitCount, name.utf8Start[0]) != 0 }

    /// The bit in which a capital letter differs from a small one is left out. The factor seven keeps names of one length and neighbouring letters apart.
    private static func bit(_ length: Int, _ first: UInt8) -> UInt64 {
        1 << (UInt64(truncatingIfNeeded: length &* 7 &+ Int(first & 0x1F)) & 63)
    }
}
