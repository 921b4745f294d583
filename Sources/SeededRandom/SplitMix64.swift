/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): the same seed gives the same numbers on every machine.
///
/// For tests, simulations, load and the spread of waits. Whoever has seen one number can compute all others: secrets are made otherwise.
@frozen
public struct SplitMix64: RandomNumberGenerator, Sendable {
    @usableFromInline var state: UInt64

    /// Makes a generator.
    @inlinable
    public init(seed: UInt64) { state = seed }

    /// The next 64 bits.
    @inlinable
    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// A number from 0 to below 1, each as likely as every other.
    @inlinable
    public mutating func nextUnit() -> Double { Double(next() >> 11) * 0x1p-53 }

    /// A number of the range.
    @inlinable
    public mutating func number(_ range: ClosedRange<Int>) -> Int { range.lowerBound + Int(next() % UInt64(range.count)) }

    /// True with this probability, which is 0 to 1.
    @inlinable
    public mutating func happens(_ probability: Double) -> Bool { nextUnit() < probability }
}
