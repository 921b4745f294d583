// swift-tools-version: 6.2
import PackageDescription

/// Every target of the project: Swift 6 mode, warnings are errors.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
]

/// Deliberate faults of the protocol are compiled in for the proof alone: debug builds, and release builds that ask for them.
let faults: [SwiftSetting] =
    [.define("STOCKGATE_FAULTS", .when(configuration: .debug))]
    + (Context.environment["STOCKGATE_FAULTS"] == nil ? [] : [.define("STOCKGATE_FAULTS")])

/// The explorer walks through millions of states, in debug test runs too.
let fast: [SwiftSetting] = [.unsafeFlags(["-O"], .when(configuration: .debug))]

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
        .package(url: "https://github.com/apple/swift-log.git", from: "1.14.0"),
        .package(url: "https://github.com/apple/swift-http-types.git", from: "1.8.0"),
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

        // MARK: Libraries

        .target(name: "CircuitBreaker", swiftSettings: strict),
        .target(
            name: "RedisClient",
            dependencies: [
                "CHiredis",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict
        ),
        .target(name: "PostgresClient", dependencies: ["CLibPQ"], swiftSettings: strict),
        .target(
            name: "MessageBroker",
            dependencies: ["CRabbitMQ", .product(name: "DequeModule", package: "swift-collections")],
            swiftSettings: strict
        ),
        .target(
            name: "StockGate",
            dependencies: [
                "CircuitBreaker", "RedisClient", "PostgresClient",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            resources: [.embedInCode("Gate/Scripts"), .embedInCode("Ledger/Migrations")],
            swiftSettings: strict + faults
        ),
        .target(
            name: "ServerKit",
            dependencies: [
                "CircuitBreaker",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            resources: [.embedInCode("Dashboard/dashboard.html")],
            swiftSettings: strict
        ),

        // MARK: Servers

        .target(
            name: "ProductServer",
            dependencies: ["StockGate", "ServerKit", "PostgresClient", "RedisClient", "CircuitBreaker", "MessageBroker"],
            resources: [.embedInCode("HTTP/openapi.json"), .embedInCode("Catalog/Migrations")],
            swiftSettings: strict
        ),
        .executableTarget(
            name: "product-server",
            dependencies: ["ProductServer"],
            path: "Sources/ProductServerMain",
            swiftSettings: strict
        ),
        .target(
            name: "OrderServer",
            dependencies: ["ServerKit", "PostgresClient", "CircuitBreaker", "MessageBroker"],
            resources: [.embedInCode("HTTP/openapi.json"), .embedInCode("Store/Migrations")],
            swiftSettings: strict
        ),
        .executableTarget(name: "order-server", dependencies: ["OrderServer"], path: "Sources/OrderServerMain", swiftSettings: strict),

        // MARK: Load test and benchmarks

        .target(
            name: "FlashSaleKit",
            dependencies: [
                "PostgresClient", "RedisClient",
                .product(name: "Histogram", package: "hdrhistogram-swift"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            path: "Benchmarks/FlashSale/Kit",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "FlashSale",
            dependencies: [
                "FlashSaleKit",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            path: "Benchmarks/FlashSale/Main",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "simulate",
            dependencies: ["StockGate", "StockGateTestSupport", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            path: "Benchmarks/Simulate",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "EngineBenchmark",
            dependencies: ["StockGate", "StockGateTestSupport", .product(name: "NIOPosix", package: "swift-nio")],
            path: "Benchmarks/EngineBenchmark",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "CircuitBreakerBenchmark",
            dependencies: ["CircuitBreaker"],
            path: "Benchmarks/CircuitBreakerBenchmark",
            swiftSettings: strict
        ),

        .target(name: "AttackKit", dependencies: ["FlashSaleKit", "PostgresClient"], path: "Benchmarks/Attack/Kit", swiftSettings: strict),
        .executableTarget(
            name: "attack",
            dependencies: ["AttackKit", "FlashSaleKit", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            path: "Benchmarks/Attack/Main",
            swiftSettings: strict
        ),

        .target(
            name: "FuzzKit",
            dependencies: [
                "CLibPQ", "MessageBroker", "OrderServer", "PostgresClient", "ProductServer", "RedisClient", "ServerKit", "StockGate",
                "StockGateTestSupport",
            ],
            path: "Benchmarks/Fuzz/Kit",
            swiftSettings: strict + faults
        ),
        .executableTarget(
            name: "fuzz",
            dependencies: ["FuzzKit", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            path: "Benchmarks/Fuzz/Main",
            swiftSettings: strict
        ),

        .executableTarget(
            name: "fault-proxy",
            dependencies: ["StockGateTestSupport", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            path: "Benchmarks/FaultProxy",
            swiftSettings: strict
        ),

        // MARK: Tests

        .target(
            name: "StockGateTestSupport",
            dependencies: [
                "StockGate", "PostgresClient",
                .product(name: "HeapModule", package: "swift-collections"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict + faults + fast
        ),
        .testTarget(name: "CircuitBreakerTests", dependencies: ["CircuitBreaker"], swiftSettings: strict),
        .testTarget(
            name: "RedisClientTests",
            dependencies: [
                "RedisClient", "StockGateTestSupport",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict
        ),
        .testTarget(name: "MessageBrokerTests", dependencies: ["MessageBroker", "StockGateTestSupport"], swiftSettings: strict),
        .testTarget(name: "PostgresClientTests", dependencies: ["PostgresClient", "StockGateTestSupport"], swiftSettings: strict),
        .testTarget(
            name: "ServerKitTests",
            dependencies: [
                "ServerKit", "CircuitBreaker",
                .product(name: "HummingbirdTesting", package: "hummingbird"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "FlashSaleTests",
            dependencies: [
                "FlashSaleKit", "PostgresClient", "StockGateTestSupport",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict
        ),
        .testTarget(name: "FuzzTests", dependencies: ["FuzzKit"], swiftSettings: strict),
        .testTarget(name: "AttackTests", dependencies: ["AttackKit"], swiftSettings: strict),
        .testTarget(
            name: "StockGateTests",
            dependencies: [
                "StockGate", "StockGateTestSupport", "CircuitBreaker", "PostgresClient", "RedisClient",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict + faults
        ),
        .testTarget(
            name: "SystemTests",
            dependencies: [
                "AttackKit", "FlashSaleKit", "MessageBroker", "PostgresClient", "RedisClient", "StockGateTestSupport",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "StockGateTestSupportTests",
            dependencies: [
                "StockGateTestSupport",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "StockGateProofTests",
            dependencies: ["StockGate", "StockGateTestSupport", "CLibPQ"],
            swiftSettings: strict + faults
        ),
        .testTarget(
            name: "OrderServerTests",
            dependencies: [
                "OrderServer", "ServerKit", "PostgresClient", "CircuitBreaker", "MessageBroker", "StockGateTestSupport",
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdTesting", package: "hummingbird"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "ProductServerTests",
            dependencies: [
                "ProductServer", "ServerKit", "StockGate", "PostgresClient", "CircuitBreaker", "MessageBroker", "StockGateTestSupport",
                .product(name: "HummingbirdTesting", package: "hummingbird"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict
        ),
    ]
)
