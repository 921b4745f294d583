import Foundation
import SeededRandom

extension SplitMix64 {
    /// The wait until the next arrival of a Poisson process, in seconds.
    mutating func interarrival(perSecond rate: Double) -> Double {
        // 1 - u is in (0, 1], so the logarithm is finite.
        -log(1 - Double.random(in: 0..<1, using: &self)) / rate
    }
}
