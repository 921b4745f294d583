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
        // Whoever still takes earlier answers is not hurried by a request that has begun behind them.
        let isReading = machine.state == .reading && configuration.unsentBytes(context.channel) == 0
        close(in: isReading ? configuration.times.stopReading : configuration.times.stopWorking, context)
    }

    /// A stopping server waits for clients as long as they take their answers, and closes the others.
    /// - Parameter before: what the client had taken at the last look, if it had not taken everything
    func watchTaking(_ context: ChannelHandlerContext, since before: UInt64?) {
        guard machine.state != .closed else { return }
        let unsent = configuration.unsentBytes(context.channel)
        var taken: UInt64?
        if unsent > 0 {
            taken = configuration.takenBytes(context.channel) ?? (written &- UInt64(clamping: unsent))
            if taken == before { return perform(machine.close(), context) }
        } else if before != nil, machine.isQuiescing, machine.state == .reading {
            self.close(in: configuration.times.stopReading, context)
        }
        taking = context.eventLoop.assumeIsolated().scheduleTask(in: configuration.times.stopTaking) {
            self.watchTaking(context, since: taken)
        }
    }

    /// Lets the connection have a time of its own, whatever it had before.
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
