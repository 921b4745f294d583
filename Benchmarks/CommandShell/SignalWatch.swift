import Foundation
import Synchronization

/// Who is told of SIGINT, SIGTERM and SIGHUP (a terminal that was closed) in this process.
///
/// The signals are taken over once and for all: ignoring a signal anew, for another source of it, would take away the handler that the first source has.
/// Bound: one listener for each call of `interruptible` that is under way.
final class SignalWatch: Sendable {
    static let shared = SignalWatch()

    private struct State {
        var listeners: [(id: Int, tell: @Sendable () -> Void)] = []
        var nextID = 0
        var sources: [any DispatchSourceSignal] = []
    }

    private let state = Mutex(State())

    private init() {
        for number in [SIGINT, SIGTERM, SIGHUP] {
            let before = signal(number, SIG_IGN)
            // Under `nohup` the closed terminal is to be no reason to end.
            if number == SIGHUP, unsafeBitCast(before, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self) { continue }
            state.withLock { state in
                let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
                source.setEventHandler { SignalWatch.shared.tell() }
                source.resume()
                state.sources.append(source)
            }
        }
    }

    /// From now on this one is told, and the earlier ones are not, until it is forgotten.
    func listen(_ tell: @escaping @Sendable () -> Void) -> Int {
        state.withLock { state in
            state.nextID += 1
            state.listeners.append((state.nextID, tell))
            return state.nextID
        }
    }

    func forget(_ id: Int) {
        state.withLock { state in state.listeners.removeAll { $0.id == id } }
    }

    private func tell() {
        guard let listener = state.withLock({ $0.listeners.last }) else {
            // Nobody has anything to give back.
            exit(130)
        }
        listener.tell()
    }
}
