import Logging
import NIOCore
import ServiceLifecycle

/// Serves both ports: prepares the server, then answers requests until the shutdown.
///
/// A stop begins with a lame-duck time: everything is still served, but readiness says no and each answer ends its connection, so that gateways and load
/// balancers go elsewhere before a request of theirs can meet a closed door. It ends early when nobody is connected any more. Behind it no new connection is
/// made, and those that wait in the kernel are accepted, before the ports are closed.
struct HTTPService: Service, CustomStringConvertible {
    let prepare: @Sendable () async throws -> Void
    let prepared: PreparedLatch
    let servers: [any Service]
    let drain: ServerDrain
    let lameDuck: Duration
    let connections: [ConnectionLimits]
    let readiness: ServerReadiness
    let eventLoopGroup: any EventLoopGroup
    let logger: Logger

    var description: String { "HTTP" }

    func run() async throws {
        do {
            // A stop during the preparation ends it; the ports are then never bound.
            try await cancelWhenGracefulShutdown { try await prepare() }
        } catch is CancellationError {
            return
        }
        prepared.open()
        if Task.isShuttingDownGracefully { return }
        // A group of its own for each port, because one group stops its services one after the other: a client that takes long on one port would make the
        // stop of the other port begin late.
        let ports = servers.map { ServiceGroup(configuration: .init(services: [$0], logger: logger)) }
        // Detached: a child task would hear of the shutdown at once, and the servers have to serve during the lame-duck time.
        let running = Task.detached {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for port in ports {
                    group.addTask {
                        do {
                            try await port.run()
                        } catch {
                            // A port that cannot be served ends the server: the other one is told to stop.
                            for other in ports { await other.triggerGracefulShutdown() }
                            throw error
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
        try await withTaskCancellationHandler {
            try await withGracefulShutdownHandler {
                try await running.value
            } onGracefulShutdown: {
                drain.begin()
                Task.detached {
                    await waitForClients()
                    if lameDuck > .zero {
                        await drainAcceptQueues()
                        await waitForAccepted()
                    }
                    for port in ports { await port.triggerGracefulShutdown() }
                }
            }
        } onCancel: {
            running.cancel()
        }
    }

    private func waitForClients() async {
        let end = ContinuousClock.now + lameDuck
        // Ends with the lame-duck time.
        while ContinuousClock.now < end, connections.contains(where: { $0.count > 0 }) {
            try? await Task.sleep(for: .milliseconds(10))
        }
    }

    private func drainAcceptQueues() async {
        await withTaskGroup(of: Void.self) { group in
            for (metrics, channel) in readiness.listening {
                group.addTask {
                    let left = await AcceptQueue(channel: channel).drain()
                    guard left > 0 else { return }
                    metrics.closedBefore(left)
                    logger.warning(
                        "a port is closed while clients wait to be accepted; their connections are reset",
                        metadata: ["port": "\(metrics.port)", "clients": "\(left)"]
                    )
                }
            }
        }
    }

    /// Returns when every connection that was accepted before has reached the server, which drops connections once the ports are closed. An accepted
    /// connection goes from the loop that accepted it to its own loop, and back. A loop does its work in order, so an empty task on each of these loops, in
    /// that order, runs behind those steps.
    private func waitForAccepted() async {
        let accepting = readiness.listening.map { $0.channel.eventLoop }
        for loop in accepting + Array(eventLoopGroup.makeIterator()) + accepting { try? await loop.submit {}.get() }
    }
}
