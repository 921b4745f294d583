import RedisClient
import SeededRandom
import ServerKit
import StockGate
import Testing

@testable import MessageBroker
@testable import PostgresClient
@testable import ProductServer

/// No secret of an address that a library of this project takes is ever shown.
///
/// Secrets are made of `Q`, `Z`, `X`, `J` and of everything that means something in an address. No other part of an address has these four letters, so a single
/// one of them in the output is a part of a secret.
@Suite struct RedactionTests {
    private static let marks = Array("QZXJ")

    private static func secret(_ dice: inout SplitMix64, of odd: String) -> String {
        let odd = Array(odd)
        var text = String(marks.randomElement(using: &dice) ?? "Q")
        for _ in 0..<Int.random(in: 1...10, using: &dice) {
            text.append((Bool.random(using: &dice) ? marks : odd).randomElement(using: &dice) ?? "Z")
        }
        return text + String(marks.randomElement(using: &dice) ?? "X")
    }

    /// Percent-encodes: all that is none of the letters, and some of the letters too.
    private static func encoded(_ text: String, _ dice: inout SplitMix64) -> String {
        text.utf8.map { byte in
            let isPlain = (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
            if isPlain, Int.random(in: 0..<5, using: &dice) > 0 { return String(UnicodeScalar(byte)) }
            let digits = String(byte, radix: 16, uppercase: Bool.random(using: &dice))
            return "%" + (digits.count == 1 ? "0" : "") + digits
        }.joined()
    }

    private static func leaks(_ text: String) -> Bool { text.contains { marks.contains($0) } }

    /// What every reader of the text may print of it.
    private static func isHidden(_ address: String) -> Bool {
        let shown = Redaction.maskedAddress(address)
        return !leaks(shown) && !leaks(Redaction.masked(shown))
    }

    private func value(_ keyword: String, _ configuration: PostgresConfiguration) -> String? {
        configuration.connectionSettings.first { $0.keyword == keyword }?.value
    }

    @Test(arguments: 0..<4) func urlsOfPostgreSQL(seed: UInt64) throws {
        var dice = SplitMix64(seed: seed)
        var taken = 0
        for _ in 0..<2_000 {
            // Raw: what libpq lets stand in a password, which is all but @ and /. A % must be one of percent-encoding.
            let raw = Self.secret(&dice, of: ":?#&=,;\"'`$!*()[]{}|\\^~<>+.-")
            let isRaw = Bool.random(using: &dice)
            let password = isRaw ? raw : Self.secret(&dice, of: ":/?#@&=,;\"'% \\é")
            let inAddress = isRaw ? password : Self.encoded(password, &dice)
            let sslPassword = Self.secret(&dice, of: "?,\"'@/:;= ")
            // Anything may be percent-encoded, the keyword too.
            let keyword = try #require(["sslpassword", "ssl%70assword", "%73%73lpassword"].randomElement(using: &dice))
            let parameter = "\(keyword)=\(Self.encoded(sslPassword, &dice))"
            let (scheme, host) = (
                ["postgresql", "postgres"].randomElement(using: &dice) ?? "",
                ["h", "127.0.0.1:5432", "[::1]:5432", "", "h1:1,h2:2"].randomElement(using: &dice) ?? ""
            )
            let user = ["u", "a%40b", ""].randomElement(using: &dice) ?? ""
            let tail =
                ["/db?\(parameter)&sslmode=disable", "/db?sslmode=disable&\(parameter)", "?\(parameter)", "/?\(parameter)&options=-c%20x"]
                .randomElement(using: &dice) ?? ""
            let address = "\(scheme)://\(user):\(inAddress)@\(host)\(tail)"
            guard let read = try? PostgresConfiguration(url: address) else { continue }
            #expect(value("password", read) == password, "\(address)")
            #expect(value("sslpassword", read) == sslPassword, "\(address)")
            #expect(Self.isHidden(address), "\(address) -> \(Redaction.maskedAddress(address))")
            #expect(!Self.leaks(Redaction.masked("cannot reach \(address) now")) || address.contains(" "), "\(address)")
            taken += 1
        }
        #expect(taken > 1_500)
        // The password as a parameter alone, which wins over nothing.
        for _ in 0..<500 {
            let password = Self.secret(&dice, of: "@:/?#&=,;\"'% \\")
            let keyword = ["password", "pass%77ord", "%70assword"].randomElement(using: &dice) ?? ""
            let address = "postgresql://u@h/db?application_name=a&\(keyword)=\(Self.encoded(password, &dice))"
            #expect(value("password", try PostgresConfiguration(url: address)) == password)
            #expect(Self.isHidden(address), "\(address) -> \(Redaction.maskedAddress(address))")
        }
    }

    @Test(arguments: 0..<4) func keywordsAndValues(seed: UInt64) throws {
        var dice = SplitMix64(seed: seed)
        for _ in 0..<2_000 {
            let (password, sslPassword) = (Self.secret(&dice, of: " \t'\"\\=,;@:/?&%#"), Self.secret(&dice, of: " '\\=://@"))
            func written(_ value: String) -> String {
                if Bool.random(using: &dice) {
                    return "'" + value.map { "'\\".contains($0) ? "\\\($0)" : String($0) }.joined() + "'"
                }
                // Without quotes, spaces are escaped; a quote in front would begin a quoted one.
                return value.map { $0.isWhitespace || "'\\".contains($0) ? "\\\($0)" : String($0) }.joined()
            }
            func space() -> String { ["", "", " ", "  ", "\t"].randomElement(using: &dice) ?? "" }
            var parts = [
                "host\(space())=\(space())h", "user=u", "dbname='a b'", "password\(space())=\(space())\(written(password))",
                "sslpassword\(space())=\(space())\(written(sslPassword))",
            ]
            parts.shuffle(using: &dice)
            let address = space() + parts.joined(separator: " ") + space()
            let read = try PostgresConfiguration(url: address)
            #expect(value("password", read) == password, "\(address)")
            #expect(value("sslpassword", read) == sslPassword, "\(address)")
            #expect(Self.isHidden(address), "\(address) -> \(Redaction.maskedAddress(address))")
            #expect(!Self.leaks(Redaction.masked("cannot reach \(address) now")), "\(address)")
        }
    }

    @Test(arguments: 0..<4) func redisAndTheBroker(seed: UInt64) throws {
        var dice = SplitMix64(seed: seed)
        var taken = 0
        for _ in 0..<2_000 {
            let raw = Self.secret(&dice, of: ":?#&=,;\"'`$!*()[]{}|\\^~<>+.-@")
            let isRaw = Bool.random(using: &dice)
            let password = isRaw ? raw : Self.secret(&dice, of: ":/?#@&=,;\"'% \\é")
            let inAddress = isRaw ? password : Self.encoded(password, &dice)
            let redis =
                [
                    "redis://:\(inAddress)@h", "redis://u:\(inAddress)@h:1/3", "unix://:\(inAddress)@/run/x.sock?db=1",
                    "REDIS://u:\(inAddress)@[::1]:1", "redis+sentinel://:\(inAddress)@h,[::1]:1/shop/3",
                ].randomElement(using: &dice) ?? ""
            var reader = SettingsReader(environment: ["REDIS_URL": redis])
            guard let settings = try? ProductServerConfiguration(from: &reader) else { continue }
            taken += 1
            #expect(settings.engine.redis.password == password, "\(redis)")
            #expect(Self.isHidden(redis), "\(redis) -> \(Redaction.maskedAddress(redis))")
            #expect(!Self.leaks(reader.givenText) && reader.givenText.contains("***"), "\(reader.givenText)")
            #expect(!Self.leaks(Redaction.masked("settings: \(reader.givenText) and \"\(redis)\", gone")), "\(redis)")

            // rabbitmq-c takes ASCII alone.
            let brokerPassword = Self.secret(&dice, of: ":/?#@&=,;\"'% \\")
            let amqp = "amqp://u:\(Self.encoded(brokerPassword, &dice))@h:5672/v"
            #expect(try BrokerConfiguration(url: amqp).password == brokerPassword, "\(amqp)")
            #expect(Self.isHidden(amqp), "\(amqp) -> \(Redaction.maskedAddress(amqp))")
        }
        #expect(taken > 1_000)
    }

    @Test(arguments: [
        (
            "postgresql://u:p@h/db?password=x&sslmode=require&sslpassword=y",
            "postgresql://u:***@h/db?password=***&sslmode=require&sslpassword=***"
        ),
        ("host=h password='a b\\'c' user=u", "host=h password=*** user=u"), ("redis://:p,q\"r@h:1/0", "redis://:***@h:1/0"),
        ("amqp://u:p%40q@h/v", "amqp://u:***@h/v"),
        ("postgresql://srv/db?user=me@srv&password=x", "postgresql://srv/db?user=me@srv&password=***"),
        ("http://h:8081/a", "http://h:8081/a"), ("host=/cloudsql/a:b:c dbname=d", "host=/cloudsql/a:b:c dbname=d"),
    ])
    func whatIsNoSecretStays(address: String, shown: String) {
        #expect(Redaction.maskedAddress(address) == shown)
        #expect(Redaction.maskedAddress(shown) == shown)
        #expect(Redaction.masked(shown) == shown)
    }
}
