import Glibc
import NIOCore

/// The connections of a listening socket that the kernel has made and that the server has not accepted yet.
///
/// A socket that stops listening resets them: their clients believe that they are connected, and may have sent a request already that nobody can send again
/// in their place. So a stop first lets no new connection be made, then accepts those that are there, and only then closes. A client whose first packet was
/// dropped meanwhile sends it again after a second and is refused then, before it has sent anything: a gateway goes to the next server.
struct AcceptQueue: Sendable {
    /// A listening socket of NIO's.
    let channel: any Channel

    /// How long ``drain()`` lets clients wait at most: some milliseconds are enough, unless the machine gives this process no time.
    static let drainLimit = Duration.milliseconds(700)

    /// One instruction of a socket filter, as in `linux/filter.h`.
    private struct Instruction {
        var code: UInt16
        var jumpIfTrue: UInt8
        var jumpIfFalse: UInt8
        var operand: UInt32
    }

    /// `struct sock_fprog` of `linux/filter.h`.
    private struct Program: Sendable {
        var count: UInt16
        /// The address of the first instruction.
        var address: UInt
    }

    /// Drops each packet that opens a connection (SYN without ACK), and passes every other one. A TCP socket's filter sees the packet from its TCP header on,
    /// whose 14th byte is the flags.
    private static let dropsOpenings = [
        Instruction(code: 0x30, jumpIfTrue: 0, jumpIfFalse: 0, operand: 13),  // load byte 13
        Instruction(code: 0x54, jumpIfTrue: 0, jumpIfFalse: 0, operand: 0x12),  // and SYN|ACK
        Instruction(code: 0x15, jumpIfTrue: 0, jumpIfFalse: 1, operand: 0x02),  // equals SYN?
        Instruction(code: 0x06, jumpIfTrue: 0, jumpIfFalse: 0, operand: 0),  // return 0 bytes: dropped
        Instruction(code: 0x06, jumpIfTrue: 0, jumpIfFalse: 0, operand: 0x40000),  // return all of it
    ]

    /// Lets no new connection be made.
    /// - Throws: an `IOError` where the system has no such filter
    func makeNoMore() async throws {
        guard let socket = channel as? any SocketOptionProvider else { return }
        let instructions = UnsafeMutableBufferPointer<Instruction>.allocate(capacity: Self.dropsOpenings.count)
        _ = instructions.initialize(from: Self.dropsOpenings)
        // The call copies what it is given; until it has ended, the memory is kept here.
        let address = UInt(bitPattern: instructions.baseAddress)
        defer { UnsafeMutableRawPointer(bitPattern: address)?.deallocate() }
        let program = Program(count: UInt16(truncatingIfNeeded: Self.dropsOpenings.count), address: address)
        try await socket.unsafeSetSocketOption(level: .socket, name: .init(rawValue: SO_ATTACH_FILTER), value: program).get()
    }

    /// How many wait to be accepted.
    /// - Throws: an `IOError` where the socket is closed
    func count() async throws -> Int {
        guard let socket = channel as? any SocketOptionProvider else { return 0 }
        // For a listening socket, Linux reports the length of its accept queue in this field (tcp_diag's `idiag_rqueue`).
        let information: TCPInformation = try await socket.unsafeGetSocketOption(level: .tcp, name: .init(rawValue: TCP_INFO)).get()
        return Int(information.value.tcpi_unacked)
    }

    /// The kernel's figures of a socket: plain numbers.
    private struct TCPInformation: Sendable {
        var value = tcp_info()
    }

    /// Lets no new connection be made, and returns when all that were made are accepted, or after ``drainLimit``.
    /// - Returns: how many connections waited at the last look, which the end of the listening socket will reset
    @discardableResult
    func drain() async -> Int {
        do {
            try await makeNoMore()
            let end = ContinuousClock.now + Self.drainLimit
            var waiting = 0
            var emptyLooks = 0
            // Three looks in a row must find the queue empty: a handshake that was half done at the first is over by then. Ends at the limit.
            while emptyLooks < 3, ContinuousClock.now < end {
                waiting = try await count()
                emptyLooks = waiting == 0 ? emptyLooks + 1 : 0
                try await Task.sleep(for: .milliseconds(2))
            }
            return waiting
        } catch {
            // The filter could not be set, or the socket is closed: the stop goes on as if the queue were empty.
            return 0
        }
    }
}
