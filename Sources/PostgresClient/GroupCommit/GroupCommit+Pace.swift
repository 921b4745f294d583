extension GroupCommit {
    /// A rule for statements that cost more than the members in them. Groups that follow each other as fast as they can stay small, and most of the work is then
    /// done for the statements themselves. In a rush they follow each other at a pace instead.
    public struct Pace: Sendable {
        /// With this many members the group goes at once. Asked before each group.
        public var enough: @Sendable () -> Int
        /// A smaller group begins at least so long after the one before it. A member that comes later than that waits for nothing.
        public var interval: Duration
        /// A group that was held back, and has fewer members than one in so many of those that it was held back for, was not worth it: there is no rush.
        public var leastPart: Int
        /// How long groups are sent at once after one that was not worth holding back. It doubles with each further such group in a row, up to 16 times.
        public var rest: Duration

        /// Creates a rule.
        public init(interval: Duration, leastPart: Int, rest: Duration, enough: @escaping @Sendable () -> Int) {
            self.enough = enough
            self.interval = interval
            self.leastPart = max(1, leastPart)
            self.rest = rest
        }

        static var mostMisses: Int { 4 }

        /// The rest after a group that was not worth holding back.
        /// - Parameter misses: how many such groups came directly before it
        public func rest(after misses: Int) -> Duration { rest * (1 << min(max(0, misses), Self.mostMisses)) }

        /// In a rush, a group waits for half of what is under way.
        ///
        /// In a rush, time of the machines is what is short, and a statement costs the same for few members and for many. The half that is written gives the other
        /// half the time to gather. The wait is a part of the time that a request takes anyway, however fast the machine is: where members come evenly, at most as
        /// long again. A group waits 40 ms at most. Where what is under way waits for something else, such as a locked row, the group finds less than a quarter of
        /// what it waited for, and soon is held back about twice a second.
        /// - Parameter underWay: requests that have come and are not answered; below ``rush`` there is no rush
        public static func half(of underWay: @escaping @Sendable () -> Int) -> Self {
            .init(interval: .milliseconds(40), leastPart: 4, rest: .milliseconds(30)) {
                let count = underWay()
                return count < Self.rush ? 0 : count / 2
            }
        }

        /// With fewer requests under way there is no rush.
        public static var rush: Int { 16 }
    }
}
