public import ArgumentParser
public import FlashSaleKit
import Foundation

/// A command that is a whole program: `@main` of it runs ``Program``.
public protocol ProgramCommand: AsyncParsableCommand, SendableMetatype {}

extension ProgramCommand {
    /// Runs the command with the process's arguments.
    public static func main() async {
        await Program.main(Self.self) {
            var command = try parse()
            try await command.run()
        }
    }
}

/// A program of one command: what it prints when it fails, and its exit status.
public enum Program {
    /// Runs the command, and ends the process if it fails.
    ///
    /// Exit status: 2 wrong usage; 130 interrupted, after the command has given back what it took away; that of an `ExitCode`; 1 any other failure.
    /// - Parameters:
    ///   - command: the command, for the texts of its help and of wrong usage
    ///   - run: reads the arguments and does what they ask for
    public static func main<Command: ParsableCommand>(_ command: Command.Type, run: @escaping @Sendable () async throws -> Void) async {
        // When the reader of the output has gone away, writing fails with an error instead of ending the process.
        signal(SIGPIPE, SIG_IGN)
        let name = command.configuration.commandName ?? "\(command)"
        do {
            try await interruptible(nil, run)
        } catch let error as ExitCode {
            exit(error.rawValue)
        } catch let error as PlanError {
            fail(name, error.description, status: 2)
        } catch {
            // Help comes here too, with status 0.
            let code = command.exitCode(for: error)
            if code == .validationFailure { fail(name, command.fullMessage(for: error), status: 2) }
            if code == .success {
                print(command.fullMessage(for: error))
                exit(0)
            }
            fail(name, String(describing: error), status: 1)
        }
    }

    /// Lets this process, and those that it starts, have as many open files as the machine allows, at most 65,536: each connection is one.
    public static func raiseDescriptorLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = min(limit.rlim_max, 65_536)
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    private static func fail(_ name: String, _ message: String, status: Int32) -> Never {
        FileHandle.standardError.write(Data("\(name): \(message)\n".utf8))
        exit(status)
    }
}

/// Runs `body` in a task. The first SIGINT, SIGTERM or SIGHUP ends it in order, where it can (`interruption`); the next cancels it, and it still gives back what
/// it took away. Where one call runs inside another, the inner one is told.
/// - Throws: what `body` throws; `ExitCode(130)` if it was cancelled.
public func interruptible<Value: Sendable>(
    _ interruption: Interruption? = nil,
    _ body: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    let task = Task { try await body() }
    let listener = SignalWatch.shared.listen { if interruption?.interrupt() != true { task.cancel() } }
    defer { SignalWatch.shared.forget(listener) }
    do {
        return try await task.value
    } catch {
        if task.isCancelled { throw ExitCode(130) }
        throw error
    }
}
