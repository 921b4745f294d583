public import PostgresClient

extension PostgresConfiguration {
    /// A session of somebody who watches servers and is none: a busy machine may take longer for its statements than a server has for a buyer's.
    ///
    /// The bounds are two minutes for a statement and twenty seconds for a connect. Where a test is about a bound, it sets that one itself.
    /// - Throws: `PostgresError` where the address cannot be read
    public static func patient(_ url: String) throws -> PostgresConfiguration {
        var configuration = try PostgresConfiguration(url: url)
        configuration.connectTimeout = .seconds(20)
        configuration.statementTimeout = .seconds(120)
        configuration.callTimeout = .seconds(130)
        return configuration
    }
}
