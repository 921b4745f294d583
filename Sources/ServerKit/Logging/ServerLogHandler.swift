public import Logging
import StrictJSON

/// How lines of the log look.
public enum LogFormat: String, Sendable, CaseIterable {
    /// For people: `2026-01-31T09:30:00.000000Z info product-server: message key=value other="a value"`.
    case text
    /// For programs: one JSON object a line.
    case json
}

/// Writes one line for each event to standard error, secrets masked, without waiting for whoever reads it.
public struct ServerLogHandler: LogHandler {
    /// Added to every line.
    public var metadata: Logger.Metadata = [:]
    /// The least level that is written.
    public var logLevel: Logger.Level
    /// More metadata, of the task's context.
    public var metadataProvider: Logger.MetadataProvider?
    private let label: String
    private let format: LogFormat
    private let write: @Sendable ([UInt8]) -> Void

    /// Makes a handler.
    /// - Parameter write: takes whole lines; standard error unless told otherwise
    public init(
        label: String,
        level: Logger.Level,
        format: LogFormat,
        write: @escaping @Sendable ([UInt8]) -> Void = ServerLogHandler.writeToStandardError
    ) {
        self.label = label
        logLevel = level
        self.format = format
        self.write = write
    }

    /// Makes this handler the one of every logger. To be called once, at the start of `main`.
    public static func bootstrap(level: Logger.Level, format: LogFormat) {
        LoggingSystem.bootstrap { ServerLogHandler(label: $0, level: level, format: format) }
    }

    /// Has a line written by ``LogOutput/standardError``.
    public static func writeToStandardError(_ line: [UInt8]) { LogOutput.standardError.write(line) }

    /// A value that stays with the logger.
    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Writes an event.
    public func log(event: LogEvent) {
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { $1 } }
        if let own = event.metadata { all.merge(own) { $1 } }
        let values = all.sorted { $0.key < $1.key }.map { key, value in
            (
                name: key == "hb.request.id" ? "requestId" : key,
                value: Redaction.isSecret(name: key) ? Redaction.mask : Redaction.masked("\(value)")
            )
        }
        let message = Redaction.masked("\(event.message)")
        switch format {
        case .json:
            var json = JSONWriter()
            json.object { json in
                json.member("time", Timestamp.now)
                json.member("level", event.level.rawValue)
                json.member("logger", label)
                json.member("message", message)
                for (name, value) in values {
                    json.name(name)
                    json.value(value)
                }
            }
            write(LogText.json(json.bytes) + [0x0A])
        case .text:
            var line = "\(Timestamp.now) \(event.level.rawValue) \(label): \(LogText.message(message))"
            for (name, value) in values { line += " \(LogText.value(name))=\(LogText.value(value))" }
            write(Array((line + "\n").utf8))
        }
    }
}
