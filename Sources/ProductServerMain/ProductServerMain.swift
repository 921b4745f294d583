import Glibc
import ProductServer
import ServerKit

@main
enum Main {
    static func main() async {
        if CommandLine.arguments.dropFirst().contains(where: { $0 == "--help" || $0 == "-h" }) { return print(ProductServer.help) }
        HangupWatch.outlive()
        do {
            var reader = SettingsReader()
            let settings = try ProductSettings(from: &reader)
            ServerLogHandler.bootstrap(level: settings.server.logLevel, format: settings.server.logFormat)
            try await ProductServer.run(settings)
        } catch {
            ServerLogHandler.writeToStandardError(Array(Redaction.masked("product-server: \(error)\n").utf8))
            exit(1)
        }
    }
}
