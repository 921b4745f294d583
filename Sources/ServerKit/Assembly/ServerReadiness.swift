import NIOCore
import Synchronization

/// Waits for both ports to be bound.
final class ServerReadiness: Sendable {
    private let channels = Mutex<[(metrics: FrontDoorMetrics, channel: any Channel)]>([])

    var listening: [(metrics: FrontDoorMetrics, channel: any Channel)] { channels.withLock { $0 } }

    private let ports = Mutex<(publicPort: Int?, adminPort: Int?)>((nil, nil))
    private let onReady: @Sendable (ServerAssembly.Ports) async -> Void

    init(onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void) {
        self.onReady = onReady
    }

    func bound(_ channel: any Channel, _ metrics: FrontDoorMetrics, public port: Int) async {
        channels.withLock { $0.append((metrics, channel)) }
        await self.bound { $0.publicPort = port }
    }

    func bound(_ channel: any Channel, _ metrics: FrontDoorMetrics, admin port: Int) async {
        channels.withLock { $0.append((metrics, channel)) }
        await self.bound { $0.adminPort = port }
    }

    private func bound(_ note: (inout sending (publicPort: Int?, adminPort: Int?)) -> Void) async {
        let ports: ServerAssembly.Ports? = self.ports.withLock { ports in
            note(&ports)
            guard let publicPort = ports.publicPort, let adminPort = ports.adminPort else { return nil }
            return ServerAssembly.Ports(publicPort: publicPort, adminPort: adminPort)
        }
        if let ports { await onReady(ports) }
    }
}
