import Foundation

/// The scripts and migrations that ship, read from the sources beside these tests.
enum ContractSources {
    /// The ledger's schema as an empty database gets it.
    static func ledgerSchema() throws -> String {
        try [
            "V001_ledger.sql", "V102_increase_belongs.sql", "V103_ledger_totals.sql", "V104_row_place.sql", "V105_ledger_archive.sql",
            "V120_bump_what_is_free.sql", "V130_ledger_name_and_raise.sql", "V131_archive_ends_at_young_rows.sql",
            "V132_many_products.sql", "V140_name_without_quotes.sql",
        ].map { try text("Ledger/Migrations/" + $0) }
            .joined(separator: "\n")
    }

    static func text(_ path: String) throws -> String {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        return try String(contentsOf: root.appendingPathComponent("Sources/StockGate/" + path), encoding: .utf8)
    }
}
