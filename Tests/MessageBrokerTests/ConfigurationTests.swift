import Testing
import TransportSecurity

@testable import MessageBroker

@Suite("Addresses and messages")
struct ConfigurationTests {
    @Test func aWholeAddress() throws {
        let configuration = try BrokerConfiguration(url: "amqp://us%40er:p%2Fw@broker.internal:5673/shop%2Feu")
        #expect(configuration.addresses == [BrokerAddress(host: "broker.internal", port: 5673)])
        #expect(configuration.user == "us@er")
        #expect(configuration.password == "p/w")
        #expect(configuration.virtualHost == "shop/eu")
    }

    @Test(arguments: ["amqp://user:word@host", "amqp://user:word@host/", "amqp://user:word@host:5672/", "amqp://user:word@host/%2F"])
    func whatIsLeftOut(_ url: String) throws {
        let configuration = try BrokerConfiguration(url: url)
        #expect(configuration.addresses.map(\.port) == [5672])
        #expect(configuration.virtualHost == "/")
    }

    @Test func parametersOfTLS() throws {
        let plain = try BrokerConfiguration(url: "amqps://user:a%3Fb@host/shop")
        #expect(
            plain.addresses.map(\.port) == [5671] && plain.virtualHost == "shop" && plain.password == "a?b"
                && plain.tls == TLSClientConfiguration()
        )
        let whole = try BrokerConfiguration(url: "amqps://user:word@host:1/?sslmode=verify-ca&sslrootcert=/a%20b.pem")
        #expect(
            whole.addresses.map(\.port) == [1] && whole.virtualHost == "/" && whole.tls?.mode == .authority
                && whole.tls?.authorities == "/a b.pem"
        )
        #expect(try BrokerConfiguration(url: "amqp://user:word@host").tls == nil)
    }

    @Test func severalNodes() throws {
        let configuration = try BrokerConfiguration(url: "amqp://us%40er,a:p,w@one:5673,two,[::1]:7/shop,eu")
        #expect(configuration.addresses.map(\.description) == ["one:5673", "two:5672", "[::1]:7"])
        #expect(configuration.user == "us@er,a" && configuration.password == "p,w" && configuration.virtualHost == "shop,eu")
        #expect("\(configuration)" == "RabbitMQ us@er,a@one:5673,two:5672,[::1]:7/shop,eu")
        #expect(configuration.description(of: configuration.addresses[1]) == "RabbitMQ us@er,a@two:5672/shop,eu")
        let encrypted = try BrokerConfiguration(url: "amqps://u:p@one,two:1?sslmode=verify-ca")
        #expect(encrypted.addresses.map(\.description) == ["one:5671", "two:1"] && encrypted.virtualHost == "/")
        #expect(encrypted.tls?.mode == .authority)
        let most = (1...16).map { "h\($0)" }.joined(separator: ",")
        #expect(try BrokerConfiguration(url: "amqp://u:p@\(most)/").addresses.count == 16)
    }

    @Test(arguments: [
        ("amqp://a:hidden@one,/", "empty"), ("amqp://a:hidden@,two/", "empty"), ("amqp://a:hidden@one,:5672/", "empty"),
        ("amqp://a:hidden@one,two,one/", "twice"), ("amqp://a:hidden@one,one:5672/", "twice"),
        ("amqp://a:hidden@one:1,two:port/", "cannot be read"), ("amqp://a:hidden@one:1,two:99999999/", "cannot be read"),
        ("amqp://a:hidden@" + (1...17).map { "h\($0)" }.joined(separator: ",") + "/", "at most 16"),
        ("amqp://a:hidden@one,two/v?heartbeat=1", "no parameters"),
    ])
    func severalNodesThatCannotBeUsed(_ url: String, _ words: String) {
        do throws(BrokerError) {
            _ = try BrokerConfiguration(url: url)
            Issue.record("read \(url)")
        } catch {
            #expect(error.code == .invalidConfiguration && error.message.contains(words), "\(error)")
            #expect(!"\(error)".contains("hidden"))
        }
    }

    @Test(arguments: [
        "", "host", "http://host", "amqp://a:hidden@host:port/", "amqp://a:hidden@host:99999999/", "amqps://a:hidden@host/?sslmode=hidden",
        "amqps://a:hidden@host/?sslcert=hidden",
        "amqp://a:hidden@host/v?heartbeat=hidden",
        "amqp://host?heartbeat=hidden",
    ])
    func whatCannotBeRead(_ url: String) {
        do throws(BrokerError) {
            _ = try BrokerConfiguration(url: url)
            Issue.record("read \(url)")
        } catch {
            #expect(error.code == .invalidConfiguration)
            #expect(!"\(error)".contains("hidden"))
        }
    }

    @Test func thePasswordIsNotShown() throws {
        let configuration = try BrokerConfiguration(url: "amqp://user:hidden@host:1/shop")
        var dumped = ""
        dump(configuration, to: &dumped)
        for text in ["\(configuration)", String(reflecting: configuration), dumped] {
            #expect(!text.contains("hidden"))
            #expect(text.contains("user@host:1/shop"))
        }
    }

    private func message(_ change: (inout OutgoingMessage) -> Void) -> OutgoingMessage {
        var message = OutgoingMessage(exchange: "e", routingKey: "k", body: [])
        change(&message)
        return message
    }

    @Test func messagesThatFitNoFrameAreRefused() throws {
        var deep = HeaderValue.integer(1)
        for _ in 0..<20 { deep = .list([deep]) }
        let long = String(repeating: "é", count: 128)
        let refused = [
            message { $0.routingKey = long }, message { $0.messageID = long }, message { $0.headers = [long: 1] },
            message { $0.headers = ["a": .string(String(repeating: "x", count: OutgoingMessage.maximumHeaderBytes))] },
            message { $0.headers = ["a": deep] },
        ]
        for message in refused { #expect(throws: BrokerError.self) { try message.validate() } }
        try message { $0.routingKey = String(long.dropLast()) }.validate()
    }

    @Test func anyDeliveryCanBecomeADeadLetter() throws {
        let delivery = Delivery(
            body: [1, 2],
            messageID: String(repeating: "\u{FFFD}", count: 255),
            correlationID: "c",
            type: nil,
            contentType: nil,
            timestamp: 7,
            headers: ["big": .string(String(repeating: "x", count: 100_000))],
            exchange: "e",
            routingKey: "k",
            isRedelivered: true,
            tag: DeliveryTag(generation: 0, number: 1)
        )
        let letter = OutgoingMessage.deadLetter(delivery, to: "dead", reason: String(repeating: "bad ", count: 1000), header: "why")
        try letter.validate()
        #expect(letter.body == [1, 2])
        #expect(letter.exchange == "dead")
        #expect(letter.headers["why"]?.string?.hasPrefix("bad bad") == true)
    }
}
