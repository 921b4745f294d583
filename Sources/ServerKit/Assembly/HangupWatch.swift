// Invariant: SIGHUP never ends the process. Bound: one reading at a time; signals that come meanwhile count as one.

import Dispatch
import Glibc
import Logging

/// Reads again what may change while a server runs, when it gets SIGHUP, and says what that was.
public struct HangupWatch {
    private let source: any DispatchSourceSignal

    /// Lets the process outlive SIGHUP, which a terminal or an operator may send at any time: the first thing that a program does.
    public static func outlive() { signal(SIGHUP, SIG_IGN) }

    /// Begins to watch.
    init(_ rereadables: [any Rereadable], logger: Logger) {
        HangupWatch.outlive()
        let queue = DispatchQueue(label: "hangup")
        source = DispatchSource.makeSignalSource(signal: SIGHUP, queue: queue)
        source.setEventHandler { HangupWatch.reread(rereadables, logger) }
        source.resume()
    }

    /// Ends; SIGHUP does nothing from now on.
    func shutdown() { source.cancel() }

    static func reread(_ rereadables: [any Rereadable], _ logger: Logger) {
        var (changed, unchanged): ([String], [String]) = ([], [])
        for rereadable in rereadables {
            switch rereadable.reread() {
            case .changed: changed.append(rereadable.setting)
            case .unchanged: unchanged.append(rereadable.setting)
            case .failed(let why):
                logger.error(
                    "SIGHUP: this setting cannot be used; the value that was read before stays in force",
                    metadata: ["setting": "\(rereadable.setting)", "why": "\(why)"]
                )
            }
        }
        logger.notice(
            "SIGHUP: the files of secrets and certificates were read again; every other setting is read only at the start, and needs a restart",
            metadata: [
                "changed": "\(changed.isEmpty ? "none" : changed.joined(separator: ","))",
                "unchanged": "\(unchanged.isEmpty ? "none" : unchanged.joined(separator: ","))",
            ]
        )
    }
}
