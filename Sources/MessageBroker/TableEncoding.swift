// Converts Swift values to the C library's tables and back. Outgoing values are put into a pool that the caller recycles; incoming ones are copied.
//
// Bound: at most `maximumDepth` levels of nested tables and lists. Deeper values are read as null.

import CRabbitMQ

enum TableEncoding {
    static let maximumDepth = 16
}

/// The C library's memory for outgoing values. Only one thread may use it.
final class EncodingPool {
    private let pool: UnsafeMutablePointer<amqp_pool_t>

    init() {
        pool = .allocate(capacity: 1)
        pool.initialize(to: amqp_pool_t())
        init_amqp_pool(pool, 16384)
    }

    deinit {
        empty_amqp_pool(pool)
        pool.deallocate()
    }

    /// Frees all values that were put into the pool, so that it can be used again.
    func recycle() { recycle_amqp_pool(pool) }

    func bytes(_ text: String) -> amqp_bytes_t {
        var text = text
        return text.withUTF8 { bytes(UnsafeRawBufferPointer($0)) }
    }

    func bytes(_ source: UnsafeRawBufferPointer) -> amqp_bytes_t {
        guard let from = source.baseAddress, source.count > 0, let copy = amqp_pool_alloc(pool, source.count) else { return amqp_bytes_t() }
        copy.copyMemory(from: from, byteCount: source.count)
        return amqp_bytes_t(len: source.count, bytes: copy)
    }

    func table(_ values: [String: HeaderValue], adding extra: (key: String, value: HeaderValue)? = nil, depth: Int = 0) -> amqp_table_t {
        let count = values.count + (extra == nil ? 0 : 1)
        guard count > 0, let memory = amqp_pool_alloc(pool, count * MemoryLayout<amqp_table_entry_t>.stride) else { return amqp_table_t() }
        let entries = memory.bindMemory(to: amqp_table_entry_t.self, capacity: count)
        var index = 0
        for (key, value) in values {
            entries[index] = amqp_table_entry_t(key: bytes(key), value: field(value, depth: depth))
            index += 1
        }
        if let extra { entries[index] = amqp_table_entry_t(key: bytes(extra.key), value: field(extra.value, depth: depth)) }
        return amqp_table_t(num_entries: Int32(count), entries: entries)
    }

    private func field(_ value: HeaderValue, depth: Int) -> amqp_field_value_t {
        var field = amqp_field_value_t()
        func set(_ kind: amqp_field_value_kind_t) { field.kind = UInt8(kind.rawValue) }
        switch value {
        case .string(let text):
            set(AMQP_FIELD_KIND_UTF8)
            field.value.bytes = bytes(text)
        case .integer(let number):
            set(AMQP_FIELD_KIND_I64)
            field.value.i64 = number
        case .double(let number):
            set(AMQP_FIELD_KIND_F64)
            field.value.f64 = number
        case .boolean(let truth):
            set(AMQP_FIELD_KIND_BOOLEAN)
            field.value.boolean = truth ? 1 : 0
        case .bytes(let content):
            set(AMQP_FIELD_KIND_BYTES)
            field.value.bytes = content.withUnsafeBytes { bytes($0) }
        case .timestamp(let seconds):
            set(AMQP_FIELD_KIND_TIMESTAMP)
            field.value.u64 = seconds
        case .list(let values) where depth < TableEncoding.maximumDepth:
            set(AMQP_FIELD_KIND_ARRAY)
            var array = amqp_array_t()
            if !values.isEmpty, let memory = amqp_pool_alloc(pool, values.count * MemoryLayout<amqp_field_value_t>.stride) {
                let fields = memory.bindMemory(to: amqp_field_value_t.self, capacity: values.count)
                for (index, value) in values.enumerated() { fields[index] = self.field(value, depth: depth + 1) }
                array = amqp_array_t(num_entries: Int32(values.count), entries: fields)
            }
            field.value.array = array
        case .table(let values) where depth < TableEncoding.maximumDepth:
            set(AMQP_FIELD_KIND_TABLE)
            field.value.table = table(values, depth: depth + 1)
        case .null, .list, .table: set(AMQP_FIELD_KIND_VOID)
        }
        return field
    }
}

extension String {
    /// Copies the bytes. Invalid UTF-8 is repaired.
    init(_ bytes: amqp_bytes_t) { self.init(decoding: UnsafeRawBufferPointer(bytes), as: UTF8.self) }
}

extension UnsafeRawBufferPointer {
    init(_ bytes: amqp_bytes_t) { self.init(start: bytes.bytes, count: bytes.bytes == nil ? 0 : bytes.len) }
}

extension [String: HeaderValue] {
    /// Copies a table of the C library.
    init(_ table: amqp_table_t, depth: Int = 0) {
        self.init(minimumCapacity: Int(table.num_entries))
        for entry in UnsafeBufferPointer(start: table.entries, count: table.entries == nil ? 0 : Int(table.num_entries)) {
            self[String(entry.key)] = HeaderValue(entry.value, depth: depth)
        }
    }
}

extension HeaderValue {
    /// Copies a value of the C library.
    init(_ field: amqp_field_value_t, depth: Int = 0) {
        switch amqp_field_value_kind_t(UInt32(field.kind)) {
        case AMQP_FIELD_KIND_UTF8: self = .string(String(field.value.bytes))
        case AMQP_FIELD_KIND_BYTES: self = .bytes([UInt8](UnsafeRawBufferPointer(field.value.bytes)))
        case AMQP_FIELD_KIND_BOOLEAN: self = .boolean(field.value.boolean != 0)
        case AMQP_FIELD_KIND_I8: self = .integer(Int64(field.value.i8))
        case AMQP_FIELD_KIND_U8: self = .integer(Int64(field.value.u8))
        case AMQP_FIELD_KIND_I16: self = .integer(Int64(field.value.i16))
        case AMQP_FIELD_KIND_U16: self = .integer(Int64(field.value.u16))
        case AMQP_FIELD_KIND_I32: self = .integer(Int64(field.value.i32))
        case AMQP_FIELD_KIND_U32: self = .integer(Int64(field.value.u32))
        case AMQP_FIELD_KIND_I64: self = .integer(field.value.i64)
        case AMQP_FIELD_KIND_U64: self = .integer(Int64(clamping: field.value.u64))
        case AMQP_FIELD_KIND_F32: self = .double(Double(field.value.f32))
        case AMQP_FIELD_KIND_F64: self = .double(field.value.f64)
        case AMQP_FIELD_KIND_TIMESTAMP: self = .timestamp(seconds: field.value.u64)
        case AMQP_FIELD_KIND_TABLE where depth < TableEncoding.maximumDepth:
            self = .table([String: HeaderValue](field.value.table, depth: depth + 1))
        case AMQP_FIELD_KIND_ARRAY where depth < TableEncoding.maximumDepth:
            let array = field.value.array
            let fields = UnsafeBufferPointer(start: array.entries, count: array.entries == nil ? 0 : Int(array.num_entries))
            self = .list(fields.map { HeaderValue($0, depth: depth + 1) })
        default: self = .null
        }
    }
}
