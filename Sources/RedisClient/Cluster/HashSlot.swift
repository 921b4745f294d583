/// One of the 16,384 slots over which Redis Cluster spreads keys.
public struct HashSlot: RawRepresentable, Sendable, Hashable, CustomStringConvertible {
    /// The number of slots.
    public static let count = 16_384

    /// 0 to 16,383.
    public let rawValue: UInt16

    /// - Parameter rawValue: nil comes back for a number above 16,383.
    public init?(rawValue: UInt16) {
        guard rawValue < Self.count else { return nil }
        self.rawValue = rawValue
    }

    /// The slot of a key: CRC16 (XMODEM) of its hash tag. The tag is what stands between the first `{` and the next `}`, if that is at least one byte; else the
    /// whole key counts.
    public init(key: String) { self.init(key: key.utf8) }

    /// As `init(key:)`, for a key of any bytes.
    public init(key: some BidirectionalCollection<UInt8>) {
        var tag = key[...]
        if let open = key.firstIndex(of: UInt8(ascii: "{")) {
            let rest = key[key.index(after: open)...]
            if let close = rest.firstIndex(of: UInt8(ascii: "}")), close > rest.startIndex { tag = rest[..<close] }
        }
        var crc: UInt16 = 0
        for byte in tag { crc = (crc << 8) ^ Self.table[Int(UInt8(crc >> 8) ^ byte)] }
        rawValue = crc % UInt16(Self.count)
    }

    /// The number.
    public var description: String { String(rawValue) }

    /// The remainder of each byte under the polynomial x^16 + x^12 + x^5 + 1.
    private static let table: [UInt16] = (0..<256).map { byte in
        var crc = UInt16(byte) << 8
        for _ in 0..<8 { crc = crc & 0x8000 == 0 ? crc << 1 : (crc << 1) ^ 0x1021 }
        return crc
    }
}
