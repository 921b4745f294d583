/// The parameters of one statement in PostgreSQL's binary format. Their memory grows when needed and is reused by every call.
///
/// Invariant: `[0, count)` is written, `count <= capacity`. Pointers into the memory are valid until the next `encode`.
struct ParameterBuffer: ~Copyable {
    private var base: UnsafeMutableRawPointer
    private var capacity: Int
    private var count = 0
    private var starts: [Int] = []
    /// Object ids of the parameters' types.
    private(set) var typeIDs: [UInt32] = []
    private var lengths: [Int32] = []
    private var formats: [Int32] = []
    private var pointers: [UnsafePointer<CChar>?] = []

    /// A buffer larger than this many bytes is freed after the call that needed it.
    static let keptCapacity = 1 << 20

    init() {
        capacity = 4096
        base = .allocate(byteCount: capacity, alignment: 16)
    }

    deinit {
        base.deallocate()
    }

    /// Replaces the content with these parameters.
    mutating func encode(_ parameters: [PostgresValue]) throws(PostgresError) {
        count = 0
        starts.removeAll(keepingCapacity: true)
        typeIDs.removeAll(keepingCapacity: true)
        lengths.removeAll(keepingCapacity: true)
        if capacity > Self.keptCapacity {
            base.deallocate()
            capacity = 4096
            base = .allocate(byteCount: capacity, alignment: 16)
        }
        guard parameters.count <= 65535 else {
            throw PostgresError(code: .misuse, message: "\(parameters.count) parameters; the protocol carries 65535")
        }
        for parameter in parameters {
            let start = count
            append(parameter)
            guard count - start <= Int(Int32.max) else {
                throw PostgresError(code: .misuse, message: "a parameter of more than 2 GiB")
            }
            typeIDs.append(parameter.typeID)
            if case .null = parameter {
                starts.append(-1)
                lengths.append(0)
            } else {
                starts.append(start)
                lengths.append(Int32(count - start))
            }
        }
    }

    /// Calls `body` with libpq's parallel arrays (values, lengths, formats).
    mutating func withArguments<R>(
        _ body: (Int32, UnsafePointer<UnsafePointer<CChar>?>?, UnsafePointer<Int32>?, UnsafePointer<Int32>?) -> R
    ) -> R {
        pointers.removeAll(keepingCapacity: true)
        for start in starts {
            pointers.append(start < 0 ? nil : UnsafePointer((base + start).assumingMemoryBound(to: CChar.self)))
        }
        while formats.count < starts.count { formats.append(1) }
        let number = Int32(starts.count)
        return pointers.withUnsafeBufferPointer { pointers in
            lengths.withUnsafeBufferPointer { lengths in
                formats.withUnsafeBufferPointer { formats in
                    body(number, pointers.baseAddress, lengths.baseAddress, formats.baseAddress)
                }
            }
        }
    }

    private mutating func append(_ parameter: PostgresValue) {
        switch parameter {
        case .null:
            break
        case .int(let value):
            append(value)
        case .timestampMicros(let value):
            append(PostgresTimestamp.postgresMicros(value))
        case .double(let value):
            append(value.bitPattern)
        case .bool(let value):
            append(UInt8(value ? 1 : 0))
        case .text(let value):
            append(value)
        case .bytes(let value):
            value.withUnsafeBytes { append($0) }
        case .json(let value):
            append(UInt8(1))  // jsonb's binary format version
            append(value)
        case .ints(let values):
            appendArrayHeader(of: TypeID.int8, count: values.count, hasNull: false)
            appendEightByteElements(values) { $0 }
        case .timestampsMicros(let values):
            appendArrayHeader(of: TypeID.timestamptz, count: values.count, hasNull: false)
            appendEightByteElements(values, PostgresTimestamp.postgresMicros)
        case .optionalInts(let values):
            appendArrayHeader(of: TypeID.int8, count: values.count, hasNull: values.contains { $0 == nil })
            for value in values {
                if let value {
                    append(Int32(8))
                    append(value)
                } else {
                    append(Int32(-1))
                }
            }
        case .texts(let values):
            appendArrayHeader(of: TypeID.text, count: values.count, hasNull: false)
            for value in values {
                append(Int32(clamping: value.utf8.count))
                append(value)
            }
        case .optionalTexts(let values):
            appendArrayHeader(of: TypeID.text, count: values.count, hasNull: values.contains { $0 == nil })
            for value in values {
                if let value {
                    append(Int32(clamping: value.utf8.count))
                    append(value)
                } else {
                    append(Int32(-1))
                }
            }
        case .bools(let values):
            appendArrayHeader(of: TypeID.bool, count: values.count, hasNull: false)
            for value in values {
                append(Int32(1))
                append(UInt8(value ? 1 : 0))
            }
        }
    }

    /// The header of a one-dimensional array (PostgreSQL `array_recv`); an empty one has no dimension.
    private mutating func appendArrayHeader(of element: UInt32, count: Int, hasNull: Bool) {
        append(Int32(count == 0 ? 0 : 1))
        append(Int32(hasNull ? 1 : 0))
        append(element)
        if count > 0 {
            append(Int32(clamping: count))
            append(Int32(1))  // the lower bound
        }
    }

    @inline(__always)
    private mutating func appendEightByteElements(_ values: [Int64], _ encoded: (Int64) -> Int64) {
        reserve(values.count * 12)
        var cursor = base + count
        for value in values {
            cursor.storeBytes(of: Int32(8).bigEndian, as: Int32.self)
            (cursor + 4).storeBytes(of: encoded(value).bigEndian, as: Int64.self)
            cursor += 12
        }
        count += values.count * 12
    }

    private mutating func append<I: FixedWidthInteger & BitwiseCopyable>(_ value: I) {
        reserve(MemoryLayout<I>.size)
        (base + count).storeBytes(of: value.bigEndian, as: I.self)
        count += MemoryLayout<I>.size
    }

    private mutating func append(_ text: String) {
        var text = text
        text.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    private mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        reserve(bytes.count)
        (base + count).copyMemory(from: source, byteCount: bytes.count)
        count += bytes.count
    }

    private mutating func reserve(_ more: Int) {
        guard count + more > capacity else { return }
        let wanted = max(capacity * 2, count + more)
        let grown = UnsafeMutableRawPointer.allocate(byteCount: wanted, alignment: 16)
        grown.copyMemory(from: base, byteCount: count)
        base.deallocate()
        base = grown
        capacity = wanted
    }
}
