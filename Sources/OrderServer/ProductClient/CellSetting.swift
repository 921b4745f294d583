import ServerKit
import StockContract

/// The addresses of one cell's product servers.
struct CellSetting: Sendable, Equatable {
    /// The products of the cell. Nil where the setting names no ids: then there is one cell, which has all products.
    var ids: ProductIDs?
    /// Public ports.
    var servers: [HTTPEndpoint]
    /// Admin ports. If empty, the public ports are used, with one change a call.
    var internalServers: [HTTPEndpoint] = []

    /// Addresses of one cell at most.
    static let maximumServers = 64

    /// Reads addresses separated by commas; or cells separated by semicolons, each with its ids and an equals sign before its addresses:
    /// `1-999999=http://a,http://b;1000000-=http://c`.
    /// - Parameter skipsEmpty: whether an address between two commas may be missing
    static func cells(_ text: String, skipsEmpty: Bool = false) throws(SettingsReader.Refusal) -> [CellSetting] {
        let text = text.drop { $0 == " " }
        // An address begins with its scheme, and ids with a digit.
        guard text.utf8.first.map({ (0x30...0x39).contains($0) }) == true else {
            return [CellSetting(ids: nil, servers: try endpoints(text, skipsEmpty))]
        }
        let parts = text.split(separator: ";", maxSplits: CellMap.maximumCells, omittingEmptySubsequences: false)
        var cells: [CellSetting] = []
        for part in parts {
            guard let equals = part.firstIndex(of: "=") else {
                throw SettingsReader.Refusal("a cell is its ids, =, and its addresses, such as 1-999999=http://a,http://b")
            }
            do throws(ProductIDs.Refusal) {
                cells.append(CellSetting(ids: try ProductIDs(part[..<equals]), servers: []))
            } catch {
                throw SettingsReader.Refusal(error.words)
            }
            cells[cells.count - 1].servers = try endpoints(part[equals...].dropFirst(), skipsEmpty)
        }
        return cells
    }

    /// The map of cells; nil where one cell has all products.
    static func map(_ cells: [CellSetting]) throws(SettingsReader.Refusal) -> CellMap? {
        let ids = cells.compactMap(\.ids)
        guard !ids.isEmpty else { return nil }
        do throws(ProductIDs.Refusal) { return try CellMap(ids) } catch { throw SettingsReader.Refusal(error.words) }
    }

    /// The same cells with the admin ports of another setting, which must name the same ids, in any order.
    static func joined(_ cells: [CellSetting], admin: [CellSetting]) throws(SettingsReader.Refusal) -> [CellSetting] {
        var joined = cells
        for index in joined.indices {
            guard cells.count == admin.count, let other = admin.first(where: { $0.ids == joined[index].ids }) else {
                throw SettingsReader.Refusal("it must name the same cells as PRODUCT_SERVER_URL, by the same ids")
            }
            joined[index].internalServers = other.servers
        }
        return joined
    }

    /// Reads both settings. Where one is refused the other is checked all the same.
    static func read(_ reader: inout SettingsReader) -> (cells: [CellSetting], map: CellMap?) {
        var map: CellMap?
        let servers = reader.address(
            "PRODUCT_SERVER_URL",
            default: "http://127.0.0.1:8081",
            "public ports of the product servers, http:// or https://, separated by commas; or cells, such as 1-999999=http://a,http://b;1000000-=http://c"
        ) { text throws(SettingsReader.Refusal) in
            let cells = try CellSetting.cells(text)
            map = try CellSetting.map(cells)
            return cells
        }
        for server in servers?.flatMap(\.servers) ?? [] { reader.check("PRODUCT_SERVER_URL", server.tls) }
        let text = reader.optionalString(
            "PRODUCT_INTERNAL_URL",
            "admin ports of the product servers, as PRODUCT_SERVER_URL has them, for stock in batches; without it each change is one request to PRODUCT_SERVER_URL"
        )
        var cells = servers ?? []
        if let text, !text.allSatisfy({ $0 == " " }) {
            do throws(SettingsReader.Refusal) {
                let admin = try CellSetting.cells(text, skipsEmpty: true)
                for server in admin.flatMap(\.servers) { reader.check("PRODUCT_INTERNAL_URL", server.tls) }
                if !cells.isEmpty { cells = try joined(cells, admin: admin) }
            } catch {
                reader.refuse("PRODUCT_INTERNAL_URL: \(error.words)")
            }
        }
        return (cells, map)
    }

    private static func endpoints(_ text: Substring, _ skipsEmpty: Bool) throws(SettingsReader.Refusal) -> [HTTPEndpoint] {
        let urls = text.split(separator: ",", maxSplits: maximumServers, omittingEmptySubsequences: skipsEmpty)
        let endpoints = urls.compactMap { HTTPEndpoint(String($0.filter { $0 != " " })) }
        guard urls.count <= maximumServers, !urls.isEmpty, endpoints.count == urls.count else {
            throw SettingsReader.Refusal(
                "addresses are http:// or https://host[:port][/path], up to \(maximumServers), separated by commas; https takes sslmode, sslrootcert, sslcert and sslkey as parameters; cells are ids=addresses, separated by semicolons"
            )
        }
        return endpoints
    }
}
