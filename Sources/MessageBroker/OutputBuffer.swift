// Frames on their way to the socket; one write carries many.
//
// Invariant: bytes before `head` are written. Frames are appended as a whole.

import CRabbitMQ

/// Bytes to write. Only one thread may use this object.
final class OutputBuffer {
    private var memory: UnsafeMutableRawPointer
    private var capacity: Int
    private var head = 0
    private var tail = 0

    init(capacity: Int = 256 << 10) {
        self.capacity = capacity
        memory = .allocate(byteCount: capacity, alignment: 16)
    }

    deinit { memory.deallocate() }

    /// Bytes not yet written.
    var count: Int { tail - head }
    var unwritten: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: memory + head, count: count) }

    func wrote(_ bytes: Int) {
        head += bytes
        if head == tail {
            head = 0
            tail = 0
        }
    }

    /// A position to go back to. It is valid until the next write.
    var mark: Int { tail - head }

    func takeBack(to mark: Int) { tail = head + mark }

    private func reserve(_ bytes: Int) {
        if capacity - tail >= bytes { return }
        if head > 0, capacity - count >= bytes, head >= count {
            memory.copyMemory(from: memory + head, byteCount: count)
        } else {
            let grown = max(capacity * 2, count + bytes)
            let moved = UnsafeMutableRawPointer.allocate(byteCount: grown, alignment: 16)
            moved.copyMemory(from: memory + head, byteCount: count)
            memory.deallocate()
            memory = moved
            capacity = grown
        }
        tail -= head
        head = 0
    }

    private func put<Number: FixedWidthInteger>(_ number: Number) {
        memory.storeBytes(of: number.bigEndian, toByteOffset: tail, as: Number.self)
        tail += MemoryLayout<Number>.size
    }

    /// Appends a method frame. Returns false if the library cannot encode it.
    func append<Method>(method id: UInt32, channel: UInt16, _ method: Method) -> Bool {
        // This is enough: such a method has only a few names of at most 255 bytes. Methods with tables go through the library's own calls.
        reserve(4096)
        let start = tail
        put(UInt8(AMQP_FRAME_METHOD))
        put(channel)
        tail += 4
        put(id)
        var method = method
        let length = withUnsafeMutablePointer(to: &method) { amqp_encode_method(id, $0, amqp_bytes_t(len: 4000, bytes: memory + tail)) }
        return close(start, length: length)
    }

    /// Appends a message's header and body frames. Returns false if the library cannot encode them.
    func append(properties: inout amqp_basic_properties_t, channel: UInt16, body: [UInt8], frameMaximum: Int) -> Bool {
        let bound = OutgoingMessage.maximumHeaderBytes + 4096
        reserve(bound)
        let start = tail
        put(UInt8(AMQP_FRAME_HEADER))
        put(channel)
        tail += 4
        put(UInt16(AMQP_BASIC_CLASS))
        put(UInt16(0))
        put(UInt64(body.count))
        let length = amqp_encode_properties(UInt16(AMQP_BASIC_CLASS), &properties, amqp_bytes_t(len: bound - 64, bytes: memory + tail))
        guard close(start, length: length) else { return false }
        var sent = 0
        while sent < body.count {
            let part = min(body.count - sent, frameMaximum - 8)
            reserve(part + 8)
            put(UInt8(AMQP_FRAME_BODY))
            put(channel)
            put(UInt32(part))
            body.withUnsafeBytes { bytes in
                (memory + tail).copyMemory(from: bytes.baseAddress.map { $0 + sent } ?? UnsafeRawPointer(memory), byteCount: part)
            }
            tail += part
            put(UInt8(AMQP_FRAME_END))
            sent += part
        }
        return true
    }

    func appendHeartbeat() {
        reserve(8)
        put(UInt8(AMQP_FRAME_HEARTBEAT))
        put(UInt16(0))
        put(UInt32(0))
        put(UInt8(AMQP_FRAME_END))
    }

    /// Completes a frame with its length and its end mark. Removes it again if it could not be encoded.
    private func close(_ start: Int, length: Int32) -> Bool {
        guard length >= 0 else {
            tail = start
            return false
        }
        tail += Int(length)
        let payload = UInt32(tail - start - 7)
        memory.storeBytes(of: payload.bigEndian, toByteOffset: start + 3, as: UInt32.self)
        put(UInt8(AMQP_FRAME_END))
        return true
    }
}
