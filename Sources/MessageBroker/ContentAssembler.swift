// Builds a message from its method, header and body frames.
//
// Bounds: a body over `maximumBodyBytes` is read to its end, but not kept.
// Stop: a frame out of order breaks the protocol, and the connection is closed.

/// One channel's content, frame by frame. A value.
struct ContentAssembler<Method, Properties> {
    /// A whole message.
    struct Content {
        var method: Method
        var properties: Properties
        /// The body; nil if it exceeds the bound.
        var body: [UInt8]?
    }

    enum Step {
        case needsMore
        case complete(Content)
        case outOfTurn
    }

    private enum State {
        /// -> header
        case idle
        /// A method that carries content has come. -> body, idle
        case header(Method)
        /// -> idle
        case body(Method, Properties, [UInt8], size: UInt64, missing: UInt64)
    }

    private var state = State.idle
    let maximumBodyBytes: Int

    init(maximumBodyBytes: Int) { self.maximumBodyBytes = max(0, maximumBodyBytes) }

    /// Whether no message is half read.
    var isIdle: Bool {
        if case .idle = state { true } else { false }
    }

    mutating func received(method: Method) -> Step {
        guard case .idle = state else { return .outOfTurn }
        state = .header(method)
        return .needsMore
    }

    mutating func received(properties: Properties, bodySize: UInt64) -> Step {
        guard case .header(let method) = state else { return .outOfTurn }
        if bodySize == 0 {
            state = .idle
            return .complete(Content(method: method, properties: properties, body: []))
        }
        var body: [UInt8] = []
        if bodySize <= UInt64(maximumBodyBytes) { body.reserveCapacity(Int(bodySize)) }
        state = .body(method, properties, body, size: bodySize, missing: bodySize)
        return .needsMore
    }

    mutating func received(fragment: UnsafeRawBufferPointer) -> Step {
        guard case .body(let method, let properties, var body, let size, let missing) = state, UInt64(fragment.count) <= missing else {
            return .outOfTurn
        }
        // This drops the second reference to the bytes, which would otherwise be copied.
        state = .idle
        let isKept = size <= UInt64(maximumBodyBytes)
        if isKept { body.append(contentsOf: fragment) }
        let left = missing - UInt64(fragment.count)
        if left == 0 { return .complete(Content(method: method, properties: properties, body: isKept ? body : nil)) }
        state = .body(method, properties, body, size: size, missing: left)
        return .needsMore
    }
}
