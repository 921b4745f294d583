// One TCP connection to a server of this machine, byte by byte.
//
// Bounds: every call that can wait has a deadline. The address is always on loopback, so that no attack can leave the machine.

import Foundation

/// A connection that is used by one thread at a time. Closed when nobody holds it any more.
final class Connection {
    /// Why no connection could be made.
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// What a read brought.
    enum Received: Equatable {
        case bytes([UInt8])
        /// The server has finished sending.
        case end
        /// The server has cut the connection.
        case reset
        /// Nothing before the deadline.
        case nothing
    }

    private var descriptor: Int32

    /// Connects to a port of this machine.
    /// - Parameters:
    ///   - source: an address of 127.0.0.0/8 to come from; servers that count connections by address see it
    ///   - receiveBuffer: bytes that the kernel may keep for us at most
    /// - Throws: ``Failure``
    init(port: Int, from source: String? = nil, receiveBuffer: Int32? = nil) throws {
        guard let port = in_port_t(exactly: port) else { throw Failure(description: "\(port) is no port") }
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw Failure(description: "no socket: \(String(cString: strerror(errno)))") }
        do {
            try set(Int32(IPPROTO_TCP), TCP_NODELAY, 1)
            if let receiveBuffer { try set(SOL_SOCKET, SO_RCVBUF, receiveBuffer) }
            if let source {
                guard source.hasPrefix("127.") else { throw Failure(description: "\(source) is not on loopback") }
                // Many connections to one port: the port to come from is chosen when it is known where they go to.
                try set(Int32(IPPROTO_IP), 24 /* IP_BIND_ADDRESS_NO_PORT */, 1)
                try call("bind to \(source)") { try Self.withAddress(source, 0) { bind(self.descriptor, $0, $1) } }
            }
            let result = try Self.withAddress("127.0.0.1", port) { connect(self.descriptor, $0, $1) }
            if result != 0 {
                guard errno == EINPROGRESS else { throw Failure(description: "connect: \(String(cString: strerror(errno)))") }
                guard wait(for: Int16(POLLOUT), until: .now + .seconds(3)) else {
                    throw Failure(description: "port \(port) takes no connection within 3 seconds")
                }
                var error: Int32 = 0
                var length = socklen_t(MemoryLayout<Int32>.size)
                getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length)
                guard error == 0 else { throw Failure(description: "connect: \(String(cString: strerror(error)))") }
            }
        } catch {
            close()
            throw error
        }
    }

    deinit { close() }

    private func set(_ level: Int32, _ option: Int32, _ value: Int32) throws {
        var value = value
        try call("setsockopt") { setsockopt(self.descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size)) }
    }

    private func call(_ what: String, _ body: () throws -> Int32) throws {
        guard try body() == 0 else { throw Failure(description: "\(what): \(String(cString: strerror(errno)))") }
    }

    private static func withAddress(
        _ host: String,
        _ port: in_port_t,
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) throws -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else { throw Failure(description: "\(host) is no address") }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    /// Whether the socket is ready, or has failed, before the deadline.
    private func wait(for events: Int16, until deadline: ContinuousClock.Instant) -> Bool {
        while true {
            let left = deadline - .now
            let milliseconds = max(0, left.components.seconds * 1_000 + left.components.attoseconds / 1_000_000_000_000_000 + 1)
            var wanted = pollfd(fd: descriptor, events: events, revents: 0)
            let ready = poll(&wanted, 1, left <= .zero ? 0 : Int32(clamping: milliseconds))
            if ready > 0 { return true }
            if ready == 0 || errno != EINTR { return false }
        }
    }

    /// The port that the connection comes from; nil if the socket has none.
    var localPort: Int? {
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        return result == 0 ? Int(in_port_t(bigEndian: address.sin_port)) : nil
    }

    /// Bytes that were sent and that the server's kernel has not acknowledged; they become fewer as long as the server reads.
    var unacknowledged: Int {
        var count: Int32 = 0
        // TIOCOUTQ of a socket.
        return ioctl(descriptor, 0x5411, &count) == 0 ? Int(count) : 0
    }

    /// Sends bytes. Returns how many the kernel took before the deadline; fewer than all if the server does not read, or has cut the connection.
    @discardableResult
    func send(_ bytes: ArraySlice<UInt8>, until deadline: ContinuousClock.Instant) -> Int {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress?.advanced(by: sent), $0.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count > 0 {
                sent += count
            } else if errno == EAGAIN {
                guard wait(for: Int16(POLLOUT), until: deadline) else { return sent }
            } else if errno != EINTR {
                return sent
            }
        }
        return sent
    }

    /// Sends a text whose characters are bytes; waits two seconds at most.
    @discardableResult
    func send(_ text: String) -> Bool {
        let bytes = [UInt8](latin1: text)
        return send(bytes[...], until: .now + .seconds(2)) == bytes.count
    }

    /// Reads what is there, or the first that comes before the deadline.
    func receive(until deadline: ContinuousClock.Instant) -> Received {
        var buffer = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count > 0 { return .bytes(Array(buffer[..<count])) }
            if count == 0 { return .end }
            switch errno {
            case EAGAIN:
                guard wait(for: Int16(POLLIN), until: deadline) else { return .nothing }
            case EINTR: continue
            default: return .reset
            }
        }
    }

    /// Whether the server ends the connection before the deadline. What it still sends is dropped.
    func ends(before deadline: ContinuousClock.Instant) -> Bool {
        while true {
            switch receive(until: deadline) {
            case .bytes: if ContinuousClock.now >= deadline { return false }
            case .end, .reset: return true
            case .nothing: return false
            }
        }
    }

    /// Says that nothing more will be sent; answers can still come.
    func finishSending() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// Cuts the connection: the server's kernel gets a reset and not an end.
    func reset() {
        guard descriptor >= 0 else { return }
        var lingering = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &lingering, socklen_t(MemoryLayout<linger>.size))
        close()
    }

    /// Closes it.
    func close() {
        guard descriptor >= 0 else { return }
        Glibc.close(descriptor)
        descriptor = -1
    }
}
