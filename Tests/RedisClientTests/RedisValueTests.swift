import Testing
import TransportSecurity

@testable import RedisClient

@Suite struct RedisValueTests {
    @Test(arguments: [("0", 0), ("-1", -1), ("9223372036854775807", .max), ("-9223372036854775808", .min)] as [(String, Int64)])
    func decimals(_ text: String, _ number: Int64) {
        #expect(RedisValue.bulkString(Array(text.utf8)).int == number)
    }

    @Test(arguments: ["", "-", "1 ", "+1", "1.0", "9223372036854775808", "-9223372036854775809", "99999999999999999999"])
    func noDecimals(_ text: String) {
        #expect(RedisValue.bulkString(Array(text.utf8)).int == nil)
    }

    @Test func accessors() {
        #expect(RedisValue.integer(5).int == 5 && RedisValue.integer(5).string == nil)
        #expect(RedisValue.simpleString("OK").string == "OK" && RedisValue.null.isNull)
        #expect(RedisValue.array([.null]).array == [.null] && RedisValue.null.array == nil)
        #expect(RedisServerError("LOADING Redis is loading").kind == .loading)
        #expect(RedisServerError.Kind.loading.isRefusedBeforeExecution && !RedisServerError.Kind.err.isRefusedBeforeExecution)
    }

    @Test func unknownOutcomes() {
        #expect(RedisError(.connectionLost(sent: true)).isOutcomeUnknown && RedisError(.timedOut(sent: true)).isOutcomeUnknown)
        #expect(!RedisError(.connectionLost(sent: false)).isOutcomeUnknown && !RedisError(.notConnected).isOutcomeUnknown)
        #expect(!RedisError(.queueFull).isOutcomeUnknown && !RedisError(.server(RedisServerError("ERR"))).isOutcomeUnknown)
    }

    @Test func descriptionsHideSecrets() throws {
        #expect(RedisCommand.auth(username: nil, password: "hush").description == "AUTH")
        #expect(try !RedisConfiguration(url: "redis://u:hush@h:1/2").description.contains("hush"))
    }
}

@Suite struct RedisConfigurationURLTests {
    @Test func wholeURL() throws {
        let settings = try RedisConfiguration(url: "redis://me:p%40ss@[::1]:7000/3")
        #expect(settings.address == .tcp(host: "::1", port: 7000))
        #expect(settings.username == "me" && settings.password == "p@ss" && settings.database == 3)
    }

    @Test func defaults() throws {
        let settings = try RedisConfiguration(url: "redis://:pw@cache")
        #expect(settings.address == .tcp(host: "cache", port: 6379))
        #expect(settings.username == nil && settings.password == "pw" && settings.database == 0)
        #expect(try RedisConfiguration(url: "unix:///run/redis.sock?db=4").address == .unix(path: "/run/redis.sock"))
        #expect(try RedisConfiguration(url: "unix://:pw@/run/redis.sock?db=4").database == 4)
    }

    @Test func parametersOfTLS() throws {
        let plain = try RedisConfiguration(url: "rediss://me:p%40ss@cache:7000/3")
        #expect(plain.address == .tcp(host: "cache", port: 7000) && plain.database == 3 && plain.password == "p@ss")
        #expect(plain.tls == TLSClientConfiguration() && plain.description == "rediss://cache:7000/3")
        let whole = try RedisConfiguration(url: "rediss://h?sslmode=verify-ca&sslrootcert=/a%20b.pem&sslcert=c.pem&sslkey=k.pem")
        #expect(whole.tls?.mode == .authority && whole.tls?.authorities == "/a b.pem")
        #expect(whole.tls?.certificate == "c.pem" && whole.tls?.key == "k.pem")
        #expect(try RedisConfiguration(url: "redis://h").tls == nil)
    }

    @Test func sentinels() throws {
        let settings = try RedisConfiguration(url: "redis+sentinel://me:p%40ss@a:1,[::1],c/my%2Fshop/2")
        guard case .sentinels(let sentinels) = settings.address else { throw RedisConfiguration.InvalidURL(description: "no sentinels") }
        #expect(sentinels.endpoints.map(\.description) == ["a:1", "[::1]:26379", "c:26379"] && sentinels.master == "my/shop")
        #expect(settings.username == "me" && settings.password == "p@ss" && settings.database == 2 && settings.tls == nil)
        #expect(sentinels.username == nil && sentinels.password == nil, "the credentials in the address are the master's")
        #expect(settings.description == "redis+sentinel://a:1,[::1]:26379,c:26379/my/shop/2")
        let secure = try RedisConfiguration(url: "rediss+sentinel://:pw@a,b/shop?sslrootcert=/a.pem")
        #expect(secure.tls?.authorities == "/a.pem" && secure.database == 0 && !secure.description.contains("pw@"))
        #expect(secure.description == "rediss+sentinel://a:26379,b:26379/shop/0")
        #expect(throws: Never.self) { try RedisConfiguration(url: "redis+sentinel://\(Self.hosts(16))/shop") }
    }

    @Test func clusters() throws {
        let settings = try RedisConfiguration(url: "redis+cluster://me:p%40ss@a:1,[::1],c")
        guard case .cluster(let seeds) = settings.address else { throw RedisConfiguration.InvalidURL(description: "no cluster") }
        #expect(seeds.endpoints.map(\.description) == ["a:1", "[::1]:6379", "c:6379"])
        #expect(settings.username == "me" && settings.password == "p@ss" && settings.database == 0 && settings.tls == nil)
        #expect(settings.description == "redis+cluster://a:1,[::1]:6379,c:6379")
        let secure = try RedisConfiguration(url: "rediss+cluster://:pw@a/0?sslrootcert=/a.pem")
        #expect(secure.tls?.authorities == "/a.pem" && secure.description == "rediss+cluster://a:6379")
        #expect(throws: Never.self) { try RedisConfiguration(url: "redis+cluster://\(Self.hosts(16))/") }
    }

    /// The reason never repeats what may be a secret.
    @Test(arguments: [
        "redis+cluster://:hush@", "redis+cluster://:hush@a,", "redis+cluster://:hush@a,a", "redis+cluster://:hush@a:6379,a/0",
        "redis+cluster://:hush@a/1", "redis+cluster://:hush@a/hush", "redis+cluster://:hush@a/0/1", "redis+cluster://:hush@a?x=hush",
        "redis+cluster://:hush@a#hush", "redis+cluster://hush@a", "rediss+cluster://:hush@a?hush=1", "redis+cluster://:hush@a:0",
        "redis+cluster://:hush@\(Self.hosts(17))",
    ])
    func clustersRefused(_ url: String) {
        let refusal = #expect(throws: RedisConfiguration.InvalidURL.self) { try RedisConfiguration(url: url) }
        #expect(refusal?.description.isEmpty == false && refusal?.description.contains("hush") == false)
    }

    private static func hosts(_ count: Int) -> String { (1...count).map { "h\($0)" }.joined(separator: ",") }

    /// The reason never repeats what may be a secret.
    @Test(arguments: [
        "redis+sentinel://:hush@a", "redis+sentinel://:hush@a/", "redis+sentinel://:hush@a//0", "redis+sentinel://:hush@/shop",
        "redis+sentinel://:hush@a,/shop", "redis+sentinel://:hush@a,a/shop", "redis+sentinel://:hush@a:26379,a/shop",
        "redis+sentinel://:hush@a/shop/hush", "redis+sentinel://:hush@a/shop/0/1", "redis+sentinel://:hush@a/shop?x=hush",
        "redis+sentinel://:hush@a/shop#hush", "redis+sentinel://:hush@a/sh%zz", "redis+sentinel://:hush@a/a%20b",
        "redis+sentinel://hush@a/shop",
        "rediss+sentinel://:hush@a/shop?hush=1", "redis+sentinel://:hush@a:0/shop", "redis+sentinel://:hush@\(Self.hosts(17))/shop",
    ])
    func sentinelsRefused(_ url: String) {
        let refusal = #expect(throws: RedisConfiguration.InvalidURL.self) { try RedisConfiguration(url: url) }
        #expect(refusal?.description.isEmpty == false && refusal?.description.contains("hush") == false)
    }

    @Test(arguments: [
        "redis://h:1/2?timeout=1", "redis://h?db=1", "redis://u:p@h#2", "unix:///s?db=1&db=2", "unix:///s?x=1",
        "", "localhost", "http://h", "rediss://h?sslmode=prefer", "rediss://h#x", "redis://h?sslmode=require", "rediss://h?sslcert=a",
        "redis://", "redis://h:0", "redis://h:x", "redis://h/x", "redis://h/-1", "redis://[::1",
        "unix://run",
        "unix:///a?x=1", "redis://me@h", "redis://%zz:p@h",
    ])
    func refused(_ url: String) {
        #expect(throws: RedisConfiguration.InvalidURL.self) { try RedisConfiguration(url: url) }
    }
}
