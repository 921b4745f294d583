// Invariant: the position only moves forward, over every message up to it, in one transaction with what those messages say; messages come again after a loss and change
// nothing then. A message that was never seen shows as a gap in the offsets, which the stream hands out without any.
//
// Offsets come from the broker and counts from a row: every sum of them stays at the end of 64 bits.
//
// The one move back: a stream whose first message after a (re)start lies below the place asked for is another stream, made anew; it is read from its beginning.

/// How far a replica is in the stream.
struct FollowPosition: Sendable, Equatable {
    /// The newest message applied; nil for none.
    var last: UInt64?
    /// Messages lost at the stream's beginning: it had been cut when this replica was new.
    var missedAtBeginning: UInt64 = 0
    /// Messages lost later: cut while the replica was away for too long.
    var missedLater: UInt64 = 0
    /// How often messages were lost.
    var gaps: UInt64 = 0
    /// Whether a message has come since the last start.
    private var hasBegun = false

    init(last: UInt64? = nil, missedAtBeginning: UInt64 = 0, missedLater: UInt64 = 0, gaps: UInt64 = 0) {
        self.last = last
        self.missedAtBeginning = missedAtBeginning
        self.missedLater = missedLater
        self.gaps = gaps
    }

    /// Messages that this replica never saw.
    var missed: UInt64 { self.missedAtBeginning.addingClamped(self.missedLater) }

    /// Where to begin reading.
    var start: StreamStart { self.last.map { .offset($0.addingClamped(1)) } ?? .first }

    /// What a batch means.
    enum Step: Equatable {
        /// Apply it; the position behind it is ``FollowPosition``'s new value.
        case apply
        /// The stream is another one: read it from its beginning. The batch is not to be applied, it comes again.
        case startOver
    }

    /// A batch came, its offsets ascending.
    mutating func received(_ offsets: [UInt64]) -> Step {
        if !self.hasBegun, let last, let first = offsets.first, first <= last {
            self = FollowPosition(
                missedAtBeginning: self.missedAtBeginning,
                missedLater: self.missedLater,
                gaps: self.gaps.addingClamped(1)
            )
            return .startOver
        }
        for offset in offsets {
            self.hasBegun = true
            if let last {
                guard offset > last else { continue }
                let missed = offset - last - 1
                if missed > 0 {
                    self.missedLater = self.missedLater.addingClamped(missed)
                    self.gaps = self.gaps.addingClamped(1)
                }
            } else if offset > 0 {
                self.missedAtBeginning = self.missedAtBeginning.addingClamped(offset)
                self.gaps = self.gaps.addingClamped(1)
            }
            self.last = offset
        }
        return .apply
    }
}

extension UInt64 {
    /// The sum, or the largest number if it is beyond.
    fileprivate func addingClamped(_ other: UInt64) -> UInt64 {
        let (sum, overflow) = self.addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
