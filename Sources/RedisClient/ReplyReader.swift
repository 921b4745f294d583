import CHiredis

/// hiredis' reader (`redisReader`): bytes in, whole replies out as Swift values.
///
/// Invariant: the C pointer never leaves this object and is freed in `deinit`. hiredis calls back into `ReplyBuilder`, which makes Swift values at once. So
/// there are no C replies that could leak, and no pointer into hiredis' buffer outlives a callback.
/// Bounds: `maximumBytes` since the last whole reply; `maximumElements` in one array; seven levels of nesting (hiredis 0.14).
/// Stop: any failure is permanent. The caller closes the connection; every later call returns the same failure.
final class ReplyReader {
    enum Result {
        /// No whole reply yet: feed more bytes.
        case needMore
        case reply(RedisValue)
        /// Permanent. The text is for a log.
        case failed(String)
    }

    /// Fed in pieces of this size: hiredis moves the unread rest of its buffer each time it has consumed 1 kB.
    static let pieceSize = 4096

    private let reader: UnsafeMutablePointer<redisReader>
    private let functions: UnsafeMutablePointer<redisReplyObjectFunctions>
    private let builder: ReplyBuilder
    private let maximumBytes: Int
    /// Bytes fed since the last whole reply.
    private var bytesSinceReply = 0
    private var failure: String?

    /// - Returns: nil if there is no memory for the reader.
    init?(maximumBytes: Int, maximumElements: Int) {
        let builder = ReplyBuilder(maximumElements: maximumElements)
        let functions = UnsafeMutablePointer<redisReplyObjectFunctions>.allocate(capacity: 1)
        functions.initialize(to: ReplyBuilder.functions)
        guard let reader = redisReaderCreateWithFunctions(functions) else {
            functions.deallocate()
            return nil
        }
        // Unretained: the builder lives exactly as long as this object, and so as long as the reader.
        reader.pointee.privdata = Unmanaged.passUnretained(builder).toOpaque()
        self.reader = reader
        self.functions = functions
        self.builder = builder
        self.maximumBytes = maximumBytes
    }

    deinit {
        redisReaderFree(reader)
        functions.deallocate()
    }

    /// Gives hiredis bytes, which it copies. Call `next()` until it needs more before feeding again.
    func feed(_ bytes: UnsafeRawBufferPointer) {
        guard failure == nil, bytes.count > 0 else { return }
        bytesSinceReply += bytes.count
        if redisReaderFeed(reader, bytes.assumingMemoryBound(to: CChar.self).baseAddress, bytes.count) != REDIS_OK {
            failure = errorText()
        }
    }

    func next() -> Result {
        if let failure = self.failure { return .failed(failure) }
        var reply: UnsafeMutableRawPointer?
        guard redisReaderGetReply(reader, &reply) == REDIS_OK else {
            let failure = builder.refusal ?? errorText()
            self.failure = failure
            return .failed(failure)
        }
        guard reply != nil, let value = builder.takeValue() else {
            guard bytesSinceReply <= maximumBytes else {
                let failure = "a reply exceeds \(maximumBytes) bytes"
                self.failure = failure
                return .failed(failure)
            }
            return .needMore
        }
        bytesSinceReply = reader.pointee.len - reader.pointee.pos
        return .reply(value)
    }

    private func errorText() -> String {
        withUnsafeBytes(of: &reader.pointee.errstr) { text in
            String(decoding: text.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
}

/// Builds Swift values from hiredis' callbacks, which come depth-first and in order, so a stack of unfinished arrays is enough.
///
/// The callbacks return a mark to hiredis, which only looks whether it is null. Null means that memory ran out: this is how an array that is too large is
/// refused.
private final class ReplyBuilder {
    struct UnfinishedArray {
        var values: [RedisValue]
        var missing: Int
    }

    let maximumElements: Int
    private var unfinished: [UnfinishedArray] = []
    private var value: RedisValue?
    private(set) var refusal: String?

    init(maximumElements: Int) {
        self.maximumElements = maximumElements
        unfinished.reserveCapacity(8)
    }

    func takeValue() -> RedisValue? {
        defer { value = nil }
        return value
    }

    func add(_ newValue: RedisValue) {
        var newValue = newValue
        // At most as many rounds as there are levels: an array that became whole is itself a value of the level above.
        while !unfinished.isEmpty {
            let top = unfinished.count - 1
            unfinished[top].values.append(newValue)
            unfinished[top].missing -= 1
            guard unfinished[top].missing == 0 else { return }
            newValue = .array(unfinished.removeLast().values)
        }
        value = newValue
    }

    /// - Returns: false if the array is larger than allowed.
    func begin(elements: Int) -> Bool {
        guard elements <= maximumElements else {
            refusal = "an array of \(elements) elements exceeds \(maximumElements)"
            return false
        }
        guard elements > 0 else {
            add(.array([]))
            return true
        }
        var values: [RedisValue] = []
        // The peer's count is only a claim until the elements arrive, so little memory is reserved for it.
        values.reserveCapacity(min(elements, 1024))
        unfinished.append(UnfinishedArray(values: values, missing: elements))
        return true
    }

    static func of(_ task: UnsafePointer<redisReadTask>?) -> ReplyBuilder? {
        guard let opaque = task?.pointee.privdata else { return nil }
        return Unmanaged<ReplyBuilder>.fromOpaque(opaque).takeUnretainedValue()
    }

    /// Not null and never dereferenced.
    static var mark: UnsafeMutableRawPointer? { UnsafeMutableRawPointer(bitPattern: 1) }

    static var functions: redisReplyObjectFunctions {
        redisReplyObjectFunctions(
            createString: { task, text, count in
                guard let builder = ReplyBuilder.of(task), let type = task?.pointee.type else { return nil }
                let bytes = UnsafeRawBufferPointer(start: text, count: count)
                switch type {
                case REDIS_REPLY_STATUS: builder.add(.simpleString(String(decoding: bytes, as: UTF8.self)))
                case REDIS_REPLY_ERROR: builder.add(.error(RedisServerError(String(decoding: bytes, as: UTF8.self))))
                default: builder.add(.bulkString(Array(bytes)))
                }
                return ReplyBuilder.mark
            },
            createArray: { task, count in
                guard let builder = ReplyBuilder.of(task), builder.begin(elements: Int(count)) else { return nil }
                return ReplyBuilder.mark
            },
            createInteger: { task, value in
                guard let builder = ReplyBuilder.of(task) else { return nil }
                builder.add(.integer(Int64(value)))
                return ReplyBuilder.mark
            },
            createNil: { task in
                guard let builder = ReplyBuilder.of(task) else { return nil }
                builder.add(.null)
                return ReplyBuilder.mark
            },
            // hiredis frees marks here, which own nothing. The values of a reply that broke off are freed with the builder.
            freeObject: { _ in }
        )
    }
}
