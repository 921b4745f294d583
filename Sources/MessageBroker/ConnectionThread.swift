import CRabbitMQ
import Glibc
import Synchronization

/// Wakes a thread that sleeps in `poll`, by a descriptor that becomes readable. Signals before it looks count as one.
///
/// The thread takes *everything* that waits after each ``reset()``, the waker first puts its work down and then signals: no work is left lying.
final class WakeDescriptor: Sendable {
    let descriptor: Int32
    private let isPending = Atomic(false)

    init() throws(BrokerError) {
        descriptor = eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
        guard descriptor >= 0 else { throw BrokerError(code: .connectFailed, message: "no descriptor left (errno \(errno))") }
    }

    deinit { close(descriptor) }

    func signal() {
        if isPending.exchange(true, ordering: .acquiringAndReleasing) { return }
        var one: UInt64 = 1
        // Cannot fail: the counter holds one at most.
        _ = write(descriptor, &one, 8)
    }

    func reset() {
        var count: UInt64 = 0
        _ = read(descriptor, &count, 8)
        _ = isPending.exchange(false, ordering: .acquiringAndReleasing)
    }

    /// Sleeps until signalled or until the time comes.
    func sleep(until end: ContinuousClock.Instant) {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        _ = poll(&entry, 1, Int32(clamping: (end - .now).wholeMilliseconds))
        reset()
    }
}

/// Starts a detached thread.
///
/// - Throws: `connectFailed` if the system has no thread left.
func startThread(name: String, _ body: @escaping @Sendable () -> Void) throws(BrokerError) {
    final class Start: Sendable {
        let name: String
        let body: @Sendable () -> Void
        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }
    // Retained here, released by the thread that takes it over, or below if there is none.
    let start = Unmanaged.passRetained(Start(name: name, body: body))
    var thread = pthread_t()
    let status = pthread_create(
        &thread,
        nil,
        { argument in
            guard let argument else { return nil }
            let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
            crabbitmq_name_thread(start.name)
            start.body()
            return nil
        },
        start.toOpaque()
    )
    guard status == 0 else {
        start.release()
        throw BrokerError(code: .connectFailed, message: "no thread could be started (error \(status))")
    }
    pthread_detach(thread)
}
