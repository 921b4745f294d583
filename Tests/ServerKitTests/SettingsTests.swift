import Logging
import Testing

@testable import ServerKit

@Suite struct SettingsTests {
    @Test func readsEveryKind() throws {
        var reader = SettingsReader(environment: [
            "I": "7", "B": "off", "D": "1.5s", "S": "text", "URL": "redis://:secret@host:6379/0", "URLS": "http://a:1, http://b",
            "C": "Debug",
            "EMPTY": "",
        ])
        #expect(reader.int("I", default: 1, in: 0...10, "") == 7)
        #expect(reader.bool("B", default: true, "") == false)
        #expect(reader.duration("D", default: .seconds(1), in: .zero...(.seconds(9)), "") == .milliseconds(1500))
        #expect(reader.string("S", default: "", "") == "text")
        #expect(reader.address("URL", default: "redis://x", "") { $0 } == "redis://:secret@host:6379/0")
        #expect(reader.urls("URLS", default: [], schemes: ["http"], "") == ["http://a:1", "http://b"])
        #expect(reader.choice("C", default: Logger.Level.info, "") == .debug)
        #expect(reader.int("EMPTY", default: 3, in: 0...10, "") == 3)
        #expect(reader.secret("MISSING", "") == nil)
        try reader.finish()
        #expect(!reader.givenText.contains("secret@"))
        #expect(reader.givenText.contains("URL=redis://:***@host:6379/0"))
    }

    @Test func everyFaultIsNamedAndNoValueRepeated() {
        var reader = SettingsReader(environment: [
            "PORT": "70000", "WAIT": "5", "ON": "maybe", "LEVEL": "loud", "REDIS_URL": "hunter2", "MANY": "http://a,,http://b",
            "PORTS": "http://a:0",
        ])
        _ = reader.int("PORT", default: 1, in: 0...65535, "")
        _ = reader.duration("WAIT", default: .seconds(1), in: .milliseconds(1)...(.seconds(60)), "")
        _ = reader.bool("ON", default: true, "")
        _ = reader.choice("LEVEL", default: Logger.Level.info, "")
        #expect(
            reader.address("REDIS_URL", default: "redis://x", "") { _ throws(SettingsReader.Refusal) -> Int in throw .init("no host") }
                == nil
        )
        _ = reader.urls("MANY", default: [], schemes: ["http"], "")
        _ = reader.urls("PORTS", default: [], schemes: ["http"], "")
        do {
            try reader.finish()
            Issue.record("accepted")
        } catch {
            #expect(error.faults.count == 7)
            #expect(error.description.contains("PORT must be a whole number from 0 to 65535"))
            #expect(error.description.contains("WAIT must be a duration such as 50ms, 5s or 2m, from 1ms to 1m"))
            #expect(error.description.contains("REDIS_URL: no host"))
            #expect(!error.description.contains("hunter2"))
        }
    }

    @Test func helpListsEverySettingAndNoSecret() throws {
        var reader = SettingsReader(environment: ["ADMIN_TOKEN": "ann:s3cret"])
        let settings = ServerConfiguration(from: &reader, publicPort: ("PRODUCT_PORT", 8081), adminPort: ("PRODUCT_ADMIN_PORT", 9081))
        try reader.finish()
        #expect(settings.adminTokens == AdminTokens("ann:s3cret"))
        let help = reader.help(program: "product-server", summary: "keeps stock")
        for setting in reader.settings { #expect(help.contains(setting.name) && help.contains(setting.meaning)) }
        #expect(help.contains("default: 8081"))
        #expect(!help.contains("s3cret") && !reader.givenText.contains("s3cret"))
        #expect(reader.givenText.contains("ADMIN_TOKEN=***"))
    }

    @Test func blanksAroundAnAddressAreLeftOut() throws {
        var reader = SettingsReader(environment: ["A": " \thost=h password=s3cret\n", "B": "  ", "C": " amqp://u:s3cret@h "])
        #expect(reader.address("A", default: "x", "") { $0 } == "host=h password=s3cret")
        #expect(reader.optionalAddress("C", "") { $0 } == "amqp://u:s3cret@h")
        #expect(reader.optionalAddress("D", "") { $0 } == nil)
        #expect(reader.address("E", default: "here", "") { $0 } == "here")
        try reader.finish()
        #expect(!reader.givenText.contains("s3cret"), "\(reader.givenText)")
        _ = reader.address("B", default: "x", "") { $0 }
        #expect(throws: SettingsError(faults: ["B must be an address"])) { try reader.finish() }
    }

    @Test(
        arguments: [
            ("0s", Duration.zero), ("50ms", .milliseconds(50)), ("5s", .seconds(5)), ("2m", .seconds(120)), ("1h", .seconds(3600)),
            ("250us", .microseconds(250)),
            ("1.5s", .milliseconds(1500)), ("5", nil), ("", nil), ("s", nil), ("-1s", nil), ("1 day", nil), ("1e3s", nil), ("..s", nil),
            ("1s2", nil),
        ] as [(String, Duration?)]
    )
    func durations(text: String, duration: Duration?) {
        #expect(Duration(settingText: text) == duration)
        if let duration { #expect(Duration(settingText: duration.settingText) == duration) }
    }

    @Test(arguments: [
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"), ("postgres://u:p@ss@h/db", "postgres://u:***@h/db"),
        ("http://h/a:b@c", "http://h/a:b@c"),
        ("u@h", "u@h"), ("amqp://u@h", "amqp://u@h"), ("a://x:1@h,b://y:2@i", "a://x:***@h,b://y:***@i"), ("", ""),
    ])
    func masks(text: String, masked: String) {
        #expect(Redaction.masked(text) == masked)
        #expect(Redaction.maskedAddress(text) == masked)
    }

    @Test func adminTokensAreReadStrictly() {
        #expect(AdminTokens("alone")?.name(of: "alone".utf8) == "admin")
        let two = AdminTokens("ann:1234, bob:a:b")
        #expect(two?.name(of: "1234".utf8) == "ann")
        #expect(two?.name(of: "a:b".utf8) == "bob")
        for wrong in ["", "123", "12345", "1235", "12341234"] { #expect(two?.name(of: wrong.utf8) == nil) }
        #expect(AdminTokens("alone", defaultName: "service")?.name(of: "alone".utf8) == "service")
        for text in ["", ",", "ann:", "ann:1,", "a b:1", "ann:1 2", ":x"] { #expect(AdminTokens(text) == nil) }
    }
}
