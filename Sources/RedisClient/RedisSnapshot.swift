/// What a client has done since it was made, summed over its event loops. The numbers are of slightly different moments, since the loops go on while they are
/// read.
public struct RedisSnapshot: Sendable, Hashable {
    /// Attempts to connect, successful or not.
    public var connectAttempts = 0
    /// Connections that became ready.
    public var connects = 0
    /// Ready connections that ended.
    public var disconnects = 0
    /// Attempts that ended before the connection was ready.
    public var connectFailures = 0
    /// Connections that are ready now.
    public var ready = 0
    /// Commands without a reply, as of each loop's last read or write, with those that nobody waits for any more.
    public var pending = 0
    /// Commands whose deadline passed.
    public var timeouts = 0
    /// Replies that came after their command was timed out or cancelled, and were dropped.
    public var lateReplies = 0
    /// Connections closed because nothing came for the silence limit with commands outstanding.
    public var silences = 0
    /// Commands refused because the queue was full.
    public var queueFull = 0
    /// Connections closed because of what the peer sent.
    public var protocolViolations = 0
    /// Writes to a socket; each carries the commands of one loop turn.
    public var flushes = 0
    /// Bytes handed to sockets.
    public var bytesSent = 0
    /// Bytes that came from sockets.
    public var bytesReceived = 0

    /// Searches for the master among the sentinels. This and what follows is 0 where the address names none.
    public var masterSearches = 0
    /// Searches that found no master.
    public var masterSearchesFailed = 0
    /// Times that another master was found than before.
    public var masterChanges = 0
    /// Messages of sentinels that the master has changed.
    public var masterSwitchesHeard = 0
    /// 1 while a sentinel is listened to.
    public var sentinelsHeard = 0

    /// All zero.
    public init() {}

    mutating func add(_ locator: LocatorCounters) {
        masterSearches += locator.search.searches.current
        masterSearchesFailed += locator.search.failures.current
        masterChanges += locator.search.changes.current
        masterSwitchesHeard += locator.switches.current
        sentinelsHeard += locator.listening.current
    }

    /// Adds what another client has done, except its searches among sentinels.
    mutating func add(_ other: RedisSnapshot) {
        connectAttempts += other.connectAttempts
        connects += other.connects
        disconnects += other.disconnects
        connectFailures += other.connectFailures
        ready += other.ready
        pending += other.pending
        timeouts += other.timeouts
        lateReplies += other.lateReplies
        silences += other.silences
        queueFull += other.queueFull
        protocolViolations += other.protocolViolations
        flushes += other.flushes
        bytesSent += other.bytesSent
        bytesReceived += other.bytesReceived
    }

    mutating func add(_ loop: LoopCounters) {
        connectAttempts += loop.connectAttempts.current
        connects += loop.connects.current
        disconnects += loop.disconnects.current
        connectFailures += loop.connectFailures.current
        ready += loop.ready.current
        pending += loop.pending.current
        timeouts += loop.timeouts.current
        lateReplies += loop.lateReplies.current
        silences += loop.silences.current
        queueFull += loop.queueFull.current
        protocolViolations += loop.protocolViolations.current
        flushes += loop.flushes.current
        bytesSent += loop.bytesSent.current
        bytesReceived += loop.bytesReceived.current
    }
}
