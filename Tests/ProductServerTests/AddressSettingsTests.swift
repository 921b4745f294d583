import RedisClient
import ServerKit
import StockGate
import Testing

@testable import ProductServer

/// The addresses of this server's settings: what the libraries take, and refusals that name the variable and nothing else.
@Suite struct AddressSettingsTests {
    private func settings(_ environment: [String: String]) throws -> ProductServerConfiguration {
        var reader = SettingsReader(environment: environment)
        return try ProductServerConfiguration(from: &reader)
    }

    @Test(
        arguments: [
            "postgresql://user@/db?host=/cloudsql/project:region:instance", "host=/cloudsql/x dbname=db user=user password='a b'",
            " postgresql://user:pass@a,b/db ", "postgresql://h/db?sslmode=require&connect_timeout=10",
        ]
    )
    func whatTheLibraryTakesIsTaken(url: String) throws {
        _ = try settings(["PRODUCT_DATABASE_URL": url, "REDIS_URL": " redis://h/1\n", "AMQP_URL": " amqp://u:p@h "])
    }

    @Test func eachRefusalNamesItsVariable() {
        let error = #expect(throws: SettingsError.self) {
            try settings([
                "PRODUCT_DATABASE_URL": "postgresql://u:hidden1@h/d?replication=true", "REDIS_URL": "redis://:hidden2@h:0",
                "AMQP_URL": "amqps://u:hidden3@h?sslmode=hidden5", "LOCK_TIMEOUT": "hidden4",
            ])
        }
        let faults = error?.faults ?? []
        #expect(faults.count == 4)
        for (name, words) in [
            ("PRODUCT_DATABASE_URL", "replication has no meaning here"), ("REDIS_URL", "the port is not 1 to 65535"),
            ("AMQP_URL", "sslmode is one of verify-full, verify-ca, require"),
            ("LOCK_TIMEOUT", "must be a duration"),
        ] {
            #expect(faults.contains { $0.hasPrefix(name) && $0.contains(words) }, "\(faults)")
        }
        #expect(error?.description.contains("hidden") == false)
        for (name, value) in [
            ("PRODUCT_DATABASE_URL", "mysql://u:hidden@h/d"), ("PRODUCT_DATABASE_URL", "hidden"), ("REDIS_URL", "redis://:hidden@h/0?x=1"),
            ("REDIS_URL", "hidden"), ("AMQP_URL", "amqp://u:hidden@h/v?heartbeat=3"), ("AMQP_URL", "hidden"),
        ] {
            let error = #expect(throws: SettingsError.self) { try settings([name: value]) }
            #expect(error?.faults.count == 1 && error?.faults.first?.hasPrefix("\(name): ") == true)
            #expect(error?.description.contains("hidden") == false)
        }
    }

    /// The sentinels' credentials are theirs alone, and have no place without sentinels.
    @Test func credentialsOfSentinels() throws {
        let url = "redis+sentinel://me:hidden1@a,b:1/shop/2"
        let both = ["REDIS_URL": url, "REDIS_SENTINEL_USERNAME": "asker", "REDIS_SENTINEL_PASSWORD": "hidden2"]
        let redis = try settings(both).engine.redis
        guard case .sentinels(let sentinels) = redis.address else {
            Issue.record("\(redis)")
            return
        }
        #expect(sentinels.username == "asker" && sentinels.password == "hidden2" && sentinels.master == "shop")
        #expect(redis.username == "me" && redis.password == "hidden1" && redis.database == 2)
        guard case .sentinels(let open) = try settings(["REDIS_URL": url, "REDIS_SENTINEL_PASSWORD": ""]).engine.redis.address else {
            return
        }
        #expect(open.username == nil && open.password == nil)
        var reader = SettingsReader(environment: both)
        _ = try ProductServerConfiguration(from: &reader)
        #expect(!reader.givenText.contains("hidden"), "\(reader.givenText)")
        for (environment, name) in [
            (["REDIS_SENTINEL_PASSWORD": "hidden"], "REDIS_SENTINEL_PASSWORD"),
            (["REDIS_SENTINEL_USERNAME": "hidden"], "REDIS_SENTINEL_USERNAME"),
            (["REDIS_URL": url, "REDIS_SENTINEL_USERNAME": "hidden"], "REDIS_SENTINEL_USERNAME"),
            (["REDIS_URL": "redis+sentinel://:hidden@a"], "REDIS_URL"), (["REDIS_URL": "redis+cluster://:hidden@a,b/1"], "REDIS_URL"),
            (["REDIS_URL": "redis+cluster://a,b", "REDIS_SENTINEL_PASSWORD": "hidden"], "REDIS_SENTINEL_PASSWORD"),
        ] {
            let error = #expect(throws: SettingsError.self) { try settings(environment) }
            #expect(error?.faults.count == 1 && error?.faults.first?.hasPrefix("\(name): ") == true, "\(error?.faults ?? [])")
            #expect(error?.description.contains("hidden") == false)
        }
        guard case .cluster(let seeds) = try settings(["REDIS_URL": "rediss+cluster://:hidden@a,b:7000"]).engine.redis.address else {
            Issue.record("no cluster")
            return
        }
        #expect(seeds.endpoints.map(\.description) == ["a:6379", "b:7000"])
    }
}
