public import NIOCore

/// Writes one command as a RESP array of bulk strings into the connection's outgoing buffer.
///
/// The count of arguments stands first on the wire, so it is given at the start; `RedisConnection` refuses a command whose count is wrong.
public struct RedisCommandWriter: ~Copyable {
    // Valid for as long as the writer exists: only `withWriter` makes one, which cannot be copied out of its closure. A `ByteBuffer` held here would be a
    // second reference to the bytes that wait to be sent, and the first write would copy all of them.
    private let buffer: UnsafeMutablePointer<ByteBuffer>
    /// Arguments still to be written.
    public private(set) var remaining: Int

    private init(buffer: UnsafeMutablePointer<ByteBuffer>, argumentCount: Int) {
        self.buffer = buffer
        remaining = argumentCount
        buffer.pointee.writeHeader(UInt8(ascii: "*"), argumentCount)
    }

    /// Writes one command into a buffer; traps if `write` writes another number of arguments than announced.
    static func withWriter(into buffer: inout ByteBuffer, argumentCount: Int, _ write: (inout RedisCommandWriter) -> Void) {
        withUnsafeMutablePointer(to: &buffer) { pointer in
            var writer = RedisCommandWriter(buffer: pointer, argumentCount: argumentCount)
            write(&writer)
            precondition(writer.remaining == 0, "a command must have as many arguments as it announced")
        }
    }

    /// Writes text as UTF-8.
    public mutating func write(_ text: String) {
        remaining -= 1
        buffer.pointee.writeRESPBulkString(text)
    }

    /// Writes the text of a `StaticString`, for names of commands.
    public mutating func write(_ text: StaticString) {
        remaining -= 1
        text.withUTF8Buffer { buffer.pointee.writeRESPBulkString(UnsafeRawBufferPointer($0)) }
    }

    /// Writes a number in decimal.
    public mutating func write(_ value: Int64) {
        remaining -= 1
        buffer.pointee.writeRESPBulkString(value)
    }

    /// Writes bytes as they are.
    public mutating func write(bytes: [UInt8]) {
        remaining -= 1
        bytes.withUnsafeBytes { buffer.pointee.writeRESPBulkString($0) }
    }

    /// Writes the readable bytes of a buffer.
    public mutating func write(_ bytes: ByteBuffer) {
        remaining -= 1
        bytes.withUnsafeReadableBytes { buffer.pointee.writeRESPBulkString($0) }
    }

    /// Writes an argument of any kind.
    public mutating func write(_ argument: RedisArgument) {
        switch argument {
        case .string(let text): self.write(text)
        case .integer(let value): self.write(value)
        case .bytes(let bytes): self.write(bytes: bytes)
        case .buffer(let buffer): self.write(buffer)
        }
    }
}

extension RedisCommand {
    /// Appends the command's RESP form to a buffer.
    func encode(into buffer: inout ByteBuffer) {
        buffer.writeHeader(UInt8(ascii: "*"), arguments.count)
        for argument in arguments {
            switch argument {
            case .string(let text): buffer.writeRESPBulkString(text)
            case .integer(let value): buffer.writeRESPBulkString(value)
            case .bytes(let bytes): bytes.withUnsafeBytes { buffer.writeRESPBulkString($0) }
            case .buffer(let bytes): bytes.withUnsafeReadableBytes { buffer.writeRESPBulkString($0) }
            }
        }
    }
}

extension ByteBuffer {
    /// A prefix byte, a decimal count, CR LF: at most 1 + 19 + 2 bytes.
    fileprivate mutating func writeHeader(_ prefix: UInt8, _ count: Int) {
        writeWithUnsafeMutableBytes(minimumWritableBytes: 24) { target in
            target[0] = prefix
            let end = 1 + target.writeDecimal(UInt64(count), at: 1)
            target[end] = 13
            target[end + 1] = 10
            return end + 2
        }
    }

    fileprivate mutating func writeRESPBulkString(_ text: String) {
        let done: Void? = text.utf8.withContiguousStorageIfAvailable { self.writeRESPBulkString(UnsafeRawBufferPointer($0)) }
        // A string that is not stored as UTF-8: only those that come from another runtime.
        if done == nil { Array(text.utf8).withUnsafeBytes { self.writeRESPBulkString($0) } }
    }

    fileprivate mutating func writeRESPBulkString(_ bytes: UnsafeRawBufferPointer) {
        writeWithUnsafeMutableBytes(minimumWritableBytes: bytes.count + 28) { target in
            target[0] = UInt8(ascii: "$")
            var end = 1 + target.writeDecimal(UInt64(bytes.count), at: 1)
            target[end] = 13
            target[end + 1] = 10
            end += 2
            UnsafeMutableRawBufferPointer(rebasing: target[end...]).copyMemory(from: bytes)
            end += bytes.count
            target[end] = 13
            target[end + 1] = 10
            return end + 2
        }
    }

    fileprivate mutating func writeRESPBulkString(_ value: Int64) {
        // "$" 1-2 digits CRLF, a sign and 19 digits, CRLF: at most 27 bytes.
        writeWithUnsafeMutableBytes(minimumWritableBytes: 32) { target in
            let sign = value < 0 ? 1 : 0
            let magnitude = value.magnitude
            target[0] = UInt8(ascii: "$")
            var end = 1 + target.writeDecimal(UInt64(sign + magnitude.decimalDigits), at: 1)
            target[end] = 13
            target[end + 1] = 10
            end += 2
            if sign == 1 { target[end] = UInt8(ascii: "-") }
            end += sign
            end += target.writeDecimal(magnitude, at: end)
            target[end] = 13
            target[end + 1] = 10
            return end + 2
        }
    }
}

extension UInt64 {
    fileprivate var decimalDigits: Int {
        var count = 1
        var rest = self
        while rest >= 10 {
            rest /= 10
            count += 1
        }
        return count
    }
}

extension UnsafeMutableRawBufferPointer {
    /// Writes a number in decimal at an offset and returns how many bytes that took.
    fileprivate func writeDecimal(_ value: UInt64, at offset: Int) -> Int {
        let count = value.decimalDigits
        var rest = value
        for index in stride(from: offset + count - 1, through: offset, by: -1) {
            let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
            self[index] = UInt8(truncatingIfNeeded: digit) &+ UInt8(ascii: "0")
            rest = quotient
        }
        return count
    }
}
