// Invariant: the position only moves forward, past every message up to it, in the transaction that writes what those messages say. Messages that come again
//   after a lost connection change nothing. A message that was never seen shows as a gap in the offsets, because a stream's offsets have none.
//
// Offsets come from the broker and counts from a row, so additions are clamped to the largest number of 64 bits.
//
// The only move back: if the first message after a start or reconnect lies below the offset that was asked for, the stream was deleted and made anew. It is
// read from its beginning.

/// A replica's position in the stream.
struct FollowPosition: Sendable, Equatable {
    /// The offset of the newest message that was applied; nil if there is none.
    var last: UInt64?
    /// Messages that the stream had dropped before this replica began.
    var missedAtBeginning: UInt64 = 0
    /// Messages that the stream dropped later, while the replica was away for too long.
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

    /// All messages that this replica never saw.
    var missed: UInt64 { missedAtBeginning.addingClamped(missedLater) }

    /// Where to begin reading.
    var start: StreamStart { last.map { .offset($0.addingClamped(1)) } ?? .first }

    enum Step: Equatable {
        /// Apply the batch. ``FollowPosition``'s new value is the position after it.
        case apply
        /// The stream is another one: read it from its beginning. Do not apply the batch; its messages come again.
        case startOver
    }

    /// A batch has come, with ascending offsets.
    mutating func received(_ offsets: [UInt64]) -> Step {
        if !hasBegun, let last, let first = offsets.first, first <= last {
            self = FollowPosition(
                missedAtBeginning: self.missedAtBeginning,
                missedLater: self.missedLater,
                gaps: self.gaps.addingClamped(1)
            )
            return .startOver
        }
        for offset in offsets {
            hasBegun = true
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
    /// The sum, or the largest number if the sum exceeds it.
    fileprivate func addingClamped(_ other: UInt64) -> UInt64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
