import Foundation
import Synchronization

/// Ports of loopback for private servers.
public enum LoopbackPort {
    /// No port was free. The text names the range.
    public struct NoneFree: Error, CustomStringConvertible {
        /// What was looked for.
        public var description: String { "no port of \(LoopbackPort.range) is free on loopback" }
    }

    /// Below the ports that the kernel gives to outgoing connections: one of those could take the port of a server that is down. Also below those that
    /// `scripts/stack` gives to servers which start later.
    static let range = 10_000...19_999
    private static let given = Mutex<Set<Int>>([])

    /// A port that nobody listens on, and that this process has not had from here before.
    /// - Throws: ``NoneFree`` after a thousand ports
    public static func free() throws -> Int {
        for _ in 0..<1_000 {
            let port = Int.random(in: range)
            guard given.withLock({ $0.insert(port).inserted }) else { continue }
            if isFree(port) { return port }
        }
        throw NoneFree()
    }

    static func isFree(_ port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        // As servers do, so that connections which have ended lately are in nobody's way.
        var yes: Int32 = 1
        _ = setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        var address = loopbackAddress(port: UInt16(truncatingIfNeeded: port))
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 }
        }
    }
}

/// A port of this machine itself.
func loopbackAddress(port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr = in_addr(s_addr: UInt32(0x7F00_0001).bigEndian)
    return address
}
