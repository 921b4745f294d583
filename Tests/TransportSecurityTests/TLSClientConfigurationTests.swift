import Testing
import TransportSecurity

@Suite struct TLSClientConfigurationTests {
    @Test func everythingIsCheckedUnlessTheAddressSaysOtherwise() throws {
        let settings = try TLSClientConfiguration(query: "")
        #expect(settings == TLSClientConfiguration() && settings.mode == .full && settings.warning == nil)
        #expect(try TLSClientConfiguration(query: "sslrootcert=/ca.pem&sslmode=verify-full").warning == nil)
    }

    @Test func whatIsNotCheckedIsWarnedOf() throws {
        #expect(try TLSClientConfiguration(query: "sslmode=verify-ca").warning?.contains("verify-ca") == true)
        #expect(try TLSClientConfiguration(query: "sslmode=require").warning?.contains("not checked") == true)
    }

    @Test(arguments: [
        "sslmode=prefer", "sslmode=disable", "sslmode", "sslmode=", "hidden=1", "sslmode=require&sslmode=require", "sslcert=hidden",
        "sslkey=hidden", "sslmode=require&sslrootcert=hidden", "sslrootcert=%zzhidden", "sslrootcert=hidden%00", "sslpassword=hidden",
    ])
    func whatCannotBeReadIsRefusedWithoutItsValue(_ query: String) {
        let refusal = #expect(throws: TLSClientConfiguration.Refusal.self) { try TLSClientConfiguration(query: query) }
        #expect(refusal?.description.contains("hidden") == false)
    }
}
