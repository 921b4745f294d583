// swift-tools-version: 6.2
import PackageDescription

/// Every target of the project: Swift 6 mode, warnings are errors.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    // A file sees what it imports and no more, and what it passes on in its own interface it imports publicly.
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

/// The explorer walks through millions of states, in debug test runs too.
let fast: [SwiftSetting] = [.unsafeFlags(["-O"], .when(configuration: .debug))]

/// A library of the project, under `Sources` unless told otherwise.
func library(
    _ name: String,
    _ dependencies: [Target.Dependency] = [],
    path: String? = nil,
    resources: [Resource]? = nil,
    settings: [SwiftSetting] = []
) -> Target {
    .target(name: name, dependencies: dependencies, path: path, resources: resources, swiftSettings: strict + settings)
}

/// A program: what `main` is in. Everything that can be tested lives in a library beside it.
func program(_ name: String, _ dependencies: [Target.Dependency], path: String) -> Target {
    .executableTarget(name: name, dependencies: dependencies, path: path, swiftSettings: strict)
}

/// Tests, under `Tests`.
func tests(_ name: String, _ dependencies: [Target.Dependency], settings: [SwiftSetting] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: strict + settings)
}

// MARK: What other packages give

let algorithms = Target.Dependency.product(name: "Algorithms", package: "swift-algorithms")
let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let deques = Target.Dependency.product(name: "DequeModule", package: "swift-collections")
let heaps = Target.Dependency.product(name: "HeapModule", package: "swift-collections")
let histogram = Target.Dependency.product(name: "Histogram", package: "hdrhistogram-swift")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let hummingbirdTesting = Target.Dependency.product(name: "HummingbirdTesting", package: "hummingbird")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioHTTPTypes = Target.Dependency.product(name: "NIOHTTPTypes", package: "swift-nio-extras")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioTLS = Target.Dependency.product(name: "NIOTLS", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")

let package = Package(
    name: "StockGate",
    products: [
        .library(name: "CircuitBreaker", targets: ["CircuitBreaker"]),
        .library(name: "StockGate", targets: ["StockGate"]),
        .executable(name: "product-server", targets: ["product-server"]),
        .executable(name: "order-server", targets: ["order-server"]),
        .executable(name: "flash-sale", targets: ["FlashSale"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-extras.git", from: "1.35.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.0"),
        .package(url: "https://github.com/apple/swift-log.git", from: "1.14.0"),
        .package(url: "https://github.com/apple/swift-http-types.git", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-algorithms.git", from: "1.2.0"),
        .package(url: "https://github.com/apple/swift-collections.git", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird.git", from: "2.28.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle.git", from: "2.13.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift.git", from: "0.2.0"),
    ],
    targets: [
        // MARK: System libraries

        .systemLibrary(name: "CHiredis", pkgConfig: "hiredis", providers: [.apt(["libhiredis-dev"])]),
        .systemLibrary(name: "CLibPQ", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
        .systemLibrary(name: "CRabbitMQ", pkgConfig: "librabbitmq", providers: [.apt(["librabbitmq-dev"])]),
        .systemLibrary(name: "CThreads"),

        // MARK: Clients, which know no shop

        library("BlockingThreads", ["CThreads"]),
        library("TransportSecurity"),
        library("NIOTransportSecurity", ["TransportSecurity", nioCore, nioSSL, nioTLS]),
        library("RedisClient", ["BlockingThreads", "CHiredis", "NIOTransportSecurity", "TransportSecurity", deques, nioCore, nioPosix]),
        library("PostgresClient", ["BlockingThreads", "CLibPQ", algorithms, deques]),
        library("MessageBroker", ["BlockingThreads", "CRabbitMQ", "TransportSecurity", deques]),

        // MARK: The engine

        library("SeededRandom"),
        library("CircuitBreaker", ["SeededRandom"]),
        library(
            "StockGate",
            ["BlockingThreads", "CircuitBreaker", "NIOTransportSecurity", "RedisClient", "PostgresClient", algorithms, deques, nioCore],
            resources: [.embedInCode("Gate/Scripts"), .embedInCode("Ledger/Migrations")]
        ),

        // MARK: What every server is made of, which knows no shop

        library("StrictJSON", [nioCore]),
        library("APIErrors", ["StrictJSON"]),
        // Not `Metrics`: swift-metrics, which Hummingbird brings, has a target of that name.
        library("ServerMetrics"),
        library("HotPath", ["APIErrors", "StrictJSON", httpTypes, nioCore]),
        library(
            "ServerKit",
            [
                "APIErrors", "BlockingThreads", "CircuitBreaker", "HotPath", "MessageBroker", "NIOTransportSecurity", "PostgresClient",
                "ServerMetrics", "StrictJSON",
                "TransportSecurity", deques, httpTypes, hummingbird,
                logging, nioCore, nioHTTPTypes,
                nioPosix, nioSSL, lifecycle,
            ],
            resources: [.embedInCode("Dashboard/dashboard.html")]
        ),

        // MARK: Servers

        library("StockContract", ["APIErrors", "HotPath", "MessageBroker", "StrictJSON"]),
        library(
            "ProductServer",
            [
                "StockContract", "APIErrors", "BlockingThreads", "CircuitBreaker", "HotPath", "MessageBroker", "ServerMetrics",
                "PostgresClient",
                "RedisClient", "ServerKit",
                "StockGate", "StrictJSON",
            ],
            resources: [.embedInCode("HTTP/openapi.json"), .embedInCode("Catalog/Migrations")]
        ),
        program("product-server", ["ProductServer"], path: "Sources/ProductServerMain"),
        library(
            "OrderServer",
            [
                "StockContract", "APIErrors", "BlockingThreads", "CircuitBreaker", "HotPath", "MessageBroker", "ServerMetrics",
                "NIOTransportSecurity", "PostgresClient",
                "ServerKit", "StrictJSON", "TransportSecurity", nioCore, nioHTTP1, nioPosix,
            ],
            resources: [.embedInCode("HTTP/openapi.json"), .embedInCode("Store/Migrations")]
        ),
        program("order-server", ["OrderServer"], path: "Sources/OrderServerMain"),

        // MARK: Load test and benchmarks

        library(
            "FlashSaleKit",
            ["PostgresClient", "RedisClient", "SeededRandom", deques, histogram, nioCore, nioHTTP1, nioPosix, nioSSL],
            path: "Benchmarks/FlashSale/Kit"
        ),
        library("CommandShell", ["FlashSaleKit", argumentParser], path: "Benchmarks/CommandShell"),
        program("FlashSale", ["CommandShell", "FlashSaleKit", argumentParser, nioCore, nioPosix], path: "Benchmarks/FlashSale/Main"),
        program("simulate", ["StockGate", "StockGateProof", argumentParser], path: "Tools/Simulate"),
        program("EngineBenchmark", ["StockGate", "PrivateServers", nioPosix], path: "Benchmarks/EngineBenchmark"),
        program(
            "StoresBenchmark",
            ["CompareKit", "FlashSaleKit", "PostgresClient", "PrivateServers", nioCore, nioHTTP1, nioPosix],
            path: "Benchmarks/StoresBenchmark"
        ),
        program("CircuitBreakerBenchmark", ["CircuitBreaker"], path: "Benchmarks/CircuitBreakerBenchmark"),
        library("AttackKit", ["FlashSaleKit", "PostgresClient", "SeededRandom"], path: "Benchmarks/Attack/Kit"),
        program("attack", ["AttackKit", "CommandShell", "FlashSaleKit", argumentParser], path: "Benchmarks/Attack/Main"),
        library(
            "CompareKit",
            ["FlashSaleKit", "PostgresClient", "PrivateServers", "RedisClient", nioCore, nioHTTP1, nioPosix],
            path: "Benchmarks/Compare/Kit"
        ),
        program("compare", ["CommandShell", "CompareKit", "FlashSaleKit", argumentParser], path: "Benchmarks/Compare/Main"),
        library("BreakerKit", ["FlashSaleKit", "PrivateServers", nioCore, nioHTTP1, nioPosix], path: "Benchmarks/Breaker/Kit"),
        library("ProfileKit", ["FlashSaleKit"], path: "Benchmarks/Profile/Kit"),
        program("profile", ["CommandShell", "ProfileKit", argumentParser], path: "Benchmarks/Profile/Main"),
        program("breaker", ["BreakerKit", "CommandShell", "FlashSaleKit", argumentParser], path: "Benchmarks/Breaker/Main"),
        library("SoakKit", ["FlashSaleKit"], path: "Benchmarks/Soak/Kit"),
        program("soak", ["CommandShell", "FlashSaleKit", "SoakKit", argumentParser], path: "Benchmarks/Soak/Main"),
        library(
            "FuzzKit",
            [
                "APIErrors", "CLibPQ", "HotPath", "StockContract", "MessageBroker", "ServerMetrics", "OrderServer", "PostgresClient",
                "ProductServer",
                "RedisClient", "SeededRandom", "ServerKit", "StockGate",
                "StockGateProof", "StrictJSON",
            ],
            path: "Benchmarks/Fuzz/Kit"
        ),
        program("fuzz", ["FuzzKit", argumentParser], path: "Benchmarks/Fuzz/Main"),
        program("fault-proxy", ["PrivateServers", argumentParser], path: "Tools/FaultProxy"),

        // MARK: Tests

        library("StockGateProof", ["PostgresClient", "SeededRandom", "StockGate", heaps], settings: fast),
        library("PrivateServers", ["BlockingThreads", "PostgresClient", nioCore, nioPosix, nioSSL]),
        library("Eventually", path: "Tests/Eventually"),
        tests("EventuallyTests", ["Eventually"]),
        tests("BlockingThreadsTests", ["Eventually", "BlockingThreads"]),
        tests("CircuitBreakerTests", ["CircuitBreaker", "SeededRandom"]),
        tests("TransportSecurityTests", ["NIOTransportSecurity", "PrivateServers", "TransportSecurity", nioCore, nioPosix, nioSSL]),
        tests(
            "RedisClientTests",
            [
                "Eventually", "NIOTransportSecurity", "RedisClient", "PrivateServers", "SeededRandom", "TransportSecurity", nioCore,
                nioEmbedded, nioPosix,
            ]
        ),
        tests("MessageBrokerTests", ["Eventually", "MessageBroker", "PrivateServers", "StockContract", "TransportSecurity"]),
        tests("PostgresClientTests", ["Eventually", "BlockingThreads", "CLibPQ", "PostgresClient", "PrivateServers"]),
        tests("StrictJSONTests", ["SeededRandom", "StrictJSON", nioCore]),
        tests("APIErrorsTests", ["APIErrors", "HotPath", "StockContract", "StrictJSON"]),
        tests("StockContractTests", ["APIErrors", "MessageBroker", "SeededRandom", "StockContract", "StrictJSON"]),
        tests("ServerMetricsTests", ["ServerMetrics"]),
        tests("HotPathTests", ["APIErrors", "HotPath", "SeededRandom", nioCore, nioEmbedded, nioHTTP1]),
        tests(
            "ServerKitTests",
            [
                "Eventually", "StockContract",
                "APIErrors", "CircuitBreaker", "HotPath", "NIOTransportSecurity", "PrivateServers", "SeededRandom", "ServerMetrics",
                "ServerKit",
                "StrictJSON",
                "TransportSecurity", hummingbirdTesting, nioEmbedded,
                nioHTTP1,
                nioHTTPTypes, nioPosix, nioSSL,
            ]
        ),
        tests(
            "FlashSaleTests",
            ["Eventually", "FlashSaleKit", "PostgresClient", "PrivateServers", "SeededRandom", nioCore, nioHTTP1, nioPosix, nioSSL]
        ),
        tests("FuzzTests", ["FuzzKit"]),
        tests("AttackTests", ["AttackKit"]),
        tests("BreakerTests", ["BreakerKit", "FlashSaleKit"]),
        tests("ProfileTests", ["ProfileKit"]),
        tests("SoakTests", ["FlashSaleKit", "SoakKit"]),
        tests("CompareTests", ["CompareKit", "FlashSaleKit", nioPosix]),
        tests(
            "StockGateTests",
            ["Eventually", "StockGate", "PrivateServers", "CircuitBreaker", "PostgresClient", "RedisClient", nioCore, nioPosix]
        ),
        tests(
            "SystemTests",
            [
                "Eventually", "StockContract", "AttackKit", "FlashSaleKit", "MessageBroker", "PostgresClient", "RedisClient",
                "PrivateServers", "SoakKit",
                "SeededRandom",
                "StockGateProof", nioCore,
                nioHTTP1, nioPosix,
            ]
        ),
        tests("StyleTests", []),
        tests("PrivateServersTests", ["Eventually", "PrivateServers", nioCore, nioPosix]),
        tests(
            "StockGateProofTests",
            ["RedisClient", "SeededRandom", "StockGate", "StockGateProof", "PrivateServers", "CLibPQ", algorithms]
        ),
        tests(
            "OrderServerTests",
            [
                "Eventually", "StockContract", "APIErrors", "BlockingThreads", "HotPath", "ServerMetrics", "StrictJSON", "OrderServer",
                "ServerKit",
                "PostgresClient",
                "CircuitBreaker",
                "MessageBroker", "NIOTransportSecurity", "PrivateServers", "SeededRandom", "StockGate", "StockGateProof",
                "TransportSecurity", hummingbird,
                hummingbirdTesting, nioCore, nioHTTP1, nioPosix, nioSSL,
            ]
        ),
        tests(
            "ProductServerTests",
            [
                "Eventually", "StockContract",
                "APIErrors", "HotPath", "ServerMetrics", "StrictJSON", "ProductServer", "ServerKit", "StockGate", "PostgresClient",
                "CircuitBreaker", "MessageBroker", "PrivateServers", "RedisClient", "SeededRandom",
                hummingbirdTesting, nioCore, nioPosix,
            ]
        ),
    ]
)
