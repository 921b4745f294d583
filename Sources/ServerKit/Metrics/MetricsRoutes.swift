import HTTPTypes
public import Hummingbird
public import ServerMetrics
import NIOCore

extension MetricsRegistry {
    /// Adds `GET /metrics`.
    public func register(on router: some RouterMethods<ServerRequestContext>) {
        router.get("metrics") { _, _ in
            Response(
                status: .ok,
                headers: [.contentType: MetricsText.contentType],
                body: .init(byteBuffer: ByteBuffer(bytes: self.exposition()))
            )
        }
    }
}
