// When a connection ends by time: the looks of its `ConnectionClock`, and a stop of the server.

import HotPath
import NIOCore

extension FrontDoor {
    func scheduleBeat(_ context: ChannelHandlerContext) {
        let beat = self.pass.times(self.configuration.times).beat
        self.beat = context.eventLoop.assumeIsolated().scheduleTask(in: beat) { self.look(context) }
    }

    func look(_ context: ChannelHandlerContext) {
        guard machine.state != .closed else { return }
        let unsent = configuration.unsentBytes(context.channel)
        let phase: ConnectionLook.Phase =
            switch machine.state {
            case .reading: self.hasPart || reader.hasEmptyLines ? .partial : .idle
            case .working, .ending, .closed: .working
            }
        let look = ConnectionLook(
            phase: phase,
            progress: requests &+ answers,
            unsent: unsent,
            sent: written &- UInt64(clamping: unsent)
        )
        if let verdict = clock.judge(look, at: context.eventLoop.now) {
            configuration.metrics?.closed(verdict)
            switch verdict {
            // A client that has sent empty lines alone has asked for nothing, and is closed without an answer.
            case .request where isWritable && self.hasPart: refuse(.timeout, nil, context)
            case .request, .idle, .answer: perform(machine.close(), context)
            }
            guard machine.state != .closed else { return }
        }
        scheduleBeat(context)
    }

    func quiesce(_ context: ChannelHandlerContext) {
        perform(machine.quiesce(), context)
        guard machine.state != .closed else { return }
        // A client that still takes earlier answers is not hurried by a request that has begun after them.
        let isReading = machine.state == .reading && configuration.unsentBytes(context.channel) == 0
        close(in: isReading ? configuration.times.stopReading : configuration.times.stopWorking, context)
    }

    /// A stopping server waits for clients as long as they take their answers, and closes the others. It looks several times within `ConnectionTimes.stopTaking`, so
    /// that a client that has taken everything is not kept open until that time is over.
    /// - Parameter last: what the client had taken at the last look, if it had not taken everything, and when it took a byte last
    func watchTaking(_ context: ChannelHandlerContext, last: (taken: UInt64, at: NIODeadline)?) {
        guard machine.state != .closed else { return }
        let unsent = configuration.unsentBytes(context.channel)
        let now = context.eventLoop.now
        var seen: (taken: UInt64, at: NIODeadline)?
        if unsent > 0 {
            let taken = configuration.takenBytes(context.channel) ?? (written &- UInt64(clamping: unsent))
            if let last, last.taken == taken {
                guard now - last.at < configuration.times.stopTaking else { return perform(machine.close(), context) }
                seen = last
            } else {
                seen = (taken, now)
            }
        } else if last != nil, machine.isQuiescing, machine.state == .reading {
            self.close(in: configuration.times.stopReading, context)
        }
        let look = TimeAmount.nanoseconds(max(1_000_000, configuration.times.stopTaking.nanoseconds / 10))
        taking = context.eventLoop.assumeIsolated().scheduleTask(in: look) { self.watchTaking(context, last: seen) }
    }

    /// Gives the connection this time from now on, in place of the time that it had before.
    func allow(_ time: TimeAmount, _ context: ChannelHandlerContext) {
        self.closing?.cancel()
        self.closing = nil
        self.closesAt = .distantFuture
        self.close(in: time, context)
    }

    /// Closes the connection after a time, whatever it does then. Of several such times the soonest counts.
    func close(in time: TimeAmount, _ context: ChannelHandlerContext) {
        let deadline = context.eventLoop.now + time
        guard deadline < closesAt else { return }
        closing?.cancel()
        closesAt = deadline
        closing = context.eventLoop.assumeIsolated().scheduleTask(deadline: deadline) {
            self.perform(self.machine.close(), context)
        }
    }
}
