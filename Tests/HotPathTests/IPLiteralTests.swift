import Testing

@testable import HotPath

@Suite("Addresses between brackets")
struct IPLiteralTests {
    @Test(arguments: [
        "::", "::1", "1::", "1::8", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3::5:6:7:8", "2001:DB8::8:800:200c:417a",
        "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "::255.255.255.255", "1:2:3:4:5::1.2.3.4", "v1.a", "VfF.x:y",
    ])
    func thatAreOnes(_ text: String) { #expect(IPLiteral.isOne(Array(text.utf8))) }

    @Test(arguments: [
        "", ":", ":::", "::::", "1", "1:", ":1", "1:2", "zz", "::g", "12345::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::8",
        "1::2::3", "1:::2", ":1:2:3:4:5:6:7", "1:2:3:4:5:6:7:", "1.2.3.4", "::1.2.3", "::1.2.3.4.5", "::256.1.1.1", "::01.1.1.1",
        "::ffff:999.1.1.1", "::1.2.3.4:5", "1:2:3:4:5:6:7:1.2.3.4", "::1%25eth0", "v.a", "v1.", "v1", "vg.a", "a:1",
    ])
    func thatAreNone(_ text: String) { #expect(!IPLiteral.isOne(Array(text.utf8))) }
}
