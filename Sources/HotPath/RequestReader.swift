// Reads whole requests from the bytes of a connection: head and body, one after the other. It is the only reader of those bytes, so everything behind it
// agrees on where a request ends.
//
// Invariant: every byte belongs to exactly one request or to the refusal that ends the connection. A request is handed on only when all of it has come.
// Bounds: `Limits`. A head that comes in pieces is read again only when its end has come or when it has doubled, so that the work stays linear in its bytes.

import APIErrors
package import NIOCore
import StrictJSON

/// The requests in a stream of bytes.
package struct RequestReader {
    /// How large a request may be. The defaults for a head are at least nginx's own (`large_client_header_buffers 4 8k`).
    package struct Limits: Sendable {
        /// Bytes of a head, the request line and the empty line included.
        package var headBytes = 32 * 1024
        package var targetBytes = 8 * 1024
        /// Bytes of one field, name and value.
        package var fieldBytes = 16 * 1024
        /// Fields of a head.
        package var fields = 100
        /// Bytes of a body.
        package var bodyBytes = Values.maximumBodyBytes
        /// Bytes of a body by path, for the routes that take more than others.
        package var largerBodies: [String: Int] = [:]
        /// Bytes of a chunked body that are no data: sizes, extensions, trailers.
        package var chunkOverheadBytes = 16 * 1024

        /// The limits of every port; a port changes what it must.
        package init() {}

        /// Bytes of the body of a request with this head.
        package func bodyBytes(of head: RequestHead) -> Int {
            if largerBodies.isEmpty { return bodyBytes }
            return largerBodies[head.pathWithoutQuery] ?? bodyBytes
        }
    }

    /// What the bytes at hand led to.
    package enum Step {
        /// The rest of a request has not come yet.
        case more
        /// The client waits for `100 Continue` before it sends the body. Told once for a request.
        case `continue`
        /// A whole request. Its bytes are taken from the buffer.
        case request(RequestHead, body: ByteBuffer)
        /// The connection ends. With the head, where that was read.
        case refused(RequestRefusal, RequestHead?)
    }

    private enum State {
        // -> body, chunks
        case head
        // -> head
        case body(RequestHead, length: Int, mustContinue: Bool)
        // -> head
        case chunks(RequestHead, ChunkedBody, mustContinue: Bool)
        // Final.
        case refused(RequestRefusal)
    }

    package let limits: Limits
    private var state = State.head
    /// Readable bytes when the head was last tried; 0 before the first try.
    private var tried = 0
    private var searched = 0

    package init(limits: Limits = .init()) {
        self.limits = limits
    }

    /// Whether empty lines have come since the last request. With these a client has begun to send.
    package private(set) var hasEmptyLines = false

    /// Whether part of a request has been taken from the buffer already.
    package var isInsideRequest: Bool { if case .head = state { false } else { true } }

    /// The head of the request whose body is being read.
    package var head: RequestHead? {
        switch state {
        case .head, .refused: nil
        case .body(let head, _, _), .chunks(let head, _, _): head
        }
    }

    /// Takes the next request from the buffer, or as much of it as has come. A head that is refused before it could be read stays in the buffer.
    package mutating func next(_ bytes: inout ByteBuffer) -> Step {
        // Ends: a head leads to a body, and a body to a request or a refusal.
        while true {
            switch state {
            case .head:
                guard let head = self.head(&bytes) else { return .more }
                switch head {
                case .failure(let refusal):
                    state = .refused(refusal)
                    return .refused(refusal, nil)
                case .success(let head):
                    switch head.framing {
                    case .length(let length):
                        guard length <= limits.bodyBytes || length <= limits.bodyBytes(of: head) else {
                            state = .refused(.bodyTooLarge)
                            return .refused(.bodyTooLarge, head)
                        }
                        if let body = bytes.readSlice(length: length) { return .request(head, body: body) }
                        state = .body(head, length: length, mustContinue: head.expectsContinue)
                    case .chunked: state = .chunks(head, ChunkedBody(), mustContinue: head.expectsContinue)
                    }
                }
            case .body(let head, let length, let mustContinue):
                if let body = bytes.readSlice(length: length) {
                    state = .head
                    return .request(head, body: body)
                }
                guard mustContinue else { return .more }
                state = .body(head, length: length, mustContinue: false)
                return .continue
            case .chunks(let head, var chunks, let mustContinue):
                // The state lets go of the data while a piece is added: a second reference would make each piece copy all before it.
                state = .head
                switch chunks.take(&bytes, limits, bodyBytes: limits.bodyBytes(of: head)) {
                case .whole: return .request(head, body: chunks.data)
                case .refused(let refusal):
                    state = .refused(refusal)
                    return .refused(refusal, head)
                case .more:
                    state = .chunks(head, chunks, mustContinue: false)
                    return mustContinue && chunks.isUntouched ? .continue : .more
                }
            case .refused(let refusal): return .refused(refusal, nil)
            }
        }
    }

    /// Reads the head at the beginning of the buffer and takes it. Nil: its rest has not come yet.
    private mutating func head(_ bytes: inout ByteBuffer) -> Result<RequestHead, RequestRefusal>? {
        // RFC 9112, 2.2: empty lines before a request are passed over.
        if tried == 0 {
            while bytes.getInteger(at: bytes.readerIndex, as: UInt8.self) == UInt8(ascii: "\r"),
                bytes.readableBytes < 2 || bytes.getInteger(at: bytes.readerIndex + 1, as: UInt8.self) == UInt8(ascii: "\n")
            {
                guard bytes.readableBytes >= 2 else { return nil }
                bytes.moveReaderIndex(forwardBy: 2)
                hasEmptyLines = true
            }
        }
        guard bytes.readableBytes > 0 else { return nil }
        if tried > 0, bytes.readableBytes < tried * 2, bytes.readableBytes < self.limits.headBytes, !hasHeadEnd(bytes) {
            return nil
        }
        switch RequestHead.read(bytes, limits: self.limits) {
        case .partial:
            tried = bytes.readableBytes
            searched = bytes.readableBytes
            return nil
        case .head(let head):
            tried = 0
            hasEmptyLines = false
            bytes.moveReaderIndex(forwardBy: head.length)
            return .success(head)
        case .refused(let refusal): return .failure(refusal)
        }
    }

    /// Whether an empty line has come since the last look, whatever its line ends are. A client that ends lines wrongly waits for an answer as well, and is
    /// refused as soon as if all its bytes had come at once.
    private mutating func hasHeadEnd(_ bytes: ByteBuffer) -> Bool {
        let start = searched
        searched = bytes.readableBytes
        return bytes.withUnsafeReadableBytes { bytes in
            bytes.indices.dropFirst(max(start, 1)).contains { at in
                guard bytes[at] == UInt8(ascii: "\n") else { return false }
                if bytes[at - 1] == UInt8(ascii: "\n") { return true }
                return at >= 2 && bytes[at - 1] == UInt8(ascii: "\r") && bytes[at - 2] == UInt8(ascii: "\n")
            }
        }
    }
}

/// A body in chunks (RFC 9112, 7.1). Extensions and trailers are read and dropped.
package struct ChunkedBody {
    package enum Outcome: Equatable {
        case more
        case whole
        case refused(RequestRefusal)
    }

    private enum State {
        // A line with a size and perhaps extensions. -> data, trailers
        case size
        // So many bytes are to come. -> dataEnd
        case data(Int)
        // The line end after them. -> size
        case dataEnd
        // Field lines and an empty line. Final.
        case trailers
    }

    /// The data so far.
    package private(set) var data = ByteBuffer()
    private var state = State.size
    private var overhead = 0
    /// How far the line at hand was searched for its end.
    private var searched = 0

    /// Whether nothing of the body has come yet.
    package private(set) var isUntouched = true

    /// - Parameter bodyBytes: how many bytes of data there may be
    package mutating func take(_ bytes: inout ByteBuffer, _ limits: RequestReader.Limits, bodyBytes: Int) -> Outcome {
        if bytes.readableBytes > 0 { isUntouched = false }
        // Ends: each round takes at least one byte or leaves.
        while bytes.readableBytes > 0 {
            switch state {
            case .size:
                guard let line = self.line(&bytes) else {
                    return overhead + bytes.readableBytes > limits.chunkOverheadBytes ? .refused(.chunk) : .more
                }
                guard let size = ChunkedBody.size(line) else { return .refused(.chunk) }
                guard size <= bodyBytes - data.readableBytes else { return .refused(.bodyTooLarge) }
                state = size == 0 ? .trailers : .data(size)
            case .data(let rest):
                guard var part = bytes.readSlice(length: min(rest, bytes.readableBytes)) else { return .more }
                state = part.readableBytes == rest ? .dataEnd : .data(rest - part.readableBytes)
                data.writeBuffer(&part)
            case .dataEnd:
                guard bytes.readableBytes >= 2 else { return bytes.peekByte == UInt8(ascii: "\r") ? .more : .refused(.chunk) }
                guard bytes.readInteger(as: UInt16.self) == 0x0D0A else { return .refused(.chunk) }
                overhead += 2
                state = .size
            case .trailers:
                guard bytes.peekByte == UInt8(ascii: "\r") else {
                    guard let line = self.line(&bytes) else {
                        return overhead + bytes.readableBytes > limits.chunkOverheadBytes ? .refused(.chunk) : .more
                    }
                    guard ChunkedBody.isTrailer(line) else { return .refused(.chunk) }
                    continue
                }
                guard bytes.readableBytes >= 2 else { return .more }
                guard bytes.readInteger(as: UInt16.self) == 0x0D0A else { return .refused(.chunk) }
                return .whole
            }
            guard overhead <= limits.chunkOverheadBytes else { return .refused(.chunk) }
        }
        return .more
    }

    /// A line with its end, taken from the buffer. Nil: its end has not come yet.
    private mutating func line(_ bytes: inout ByteBuffer) -> ByteBuffer? {
        let searched = self.searched
        let end = bytes.withUnsafeReadableBytes { bytes in
            bytes.dropFirst(searched).firstIndex(of: UInt8(ascii: "\n"))
        }
        guard let end else {
            self.searched = bytes.readableBytes
            return nil
        }
        self.searched = 0
        overhead += end + 1
        return bytes.readSlice(length: end + 1)
    }

    /// `1*HEXDIG [chunk-ext] CRLF`. A size of more than 16 digits, beyond leading zeros, is larger than any limit; lines are at most the overhead's limit.
    private static func size(_ line: ByteBuffer) -> Int? {
        line.withUnsafeReadableBytes { bytes in
            guard bytes.count >= 3, bytes[bytes.count - 2] == UInt8(ascii: "\r") else { return nil }
            var size = 0
            var at = 0
            while let digit = JSONParser.nibble(bytes[at]) {
                size = size > Int.max >> 5 ? Int.max >> 4 : size << 4 | Int(digit)
                at += 1
            }
            guard at > 0 else { return nil }
            return ChunkedBody.isExtensions(bytes[at..<(bytes.count - 2)]) ? size : nil
        }
    }

    /// `*( ";" token [ "=" ( token / quoted-string ) ] )`, without the white space that RFC 9112, 7.1.1 calls bad.
    private static func isExtensions(_ bytes: Slice<UnsafeRawBufferPointer>) -> Bool {
        var rest = bytes
        /// Takes a token; false: there is none.
        func token() -> Bool {
            let before = rest.count
            rest = rest.drop(while: RequestHead.isTokenByte)
            return rest.count < before
        }
        // Ends: each round takes at least a semicolon and a name.
        while let first = rest.popFirst() {
            guard first == UInt8(ascii: ";"), token() else { return false }
            guard rest.first == UInt8(ascii: "=") else { continue }
            rest.removeFirst()
            guard rest.first == UInt8(ascii: "\"") else {
                guard token() else { return false }
                continue
            }
            rest.removeFirst()
            var isClosed = false
            while !isClosed, let byte = rest.popFirst() {
                switch byte {
                case UInt8(ascii: "\""): isClosed = true
                case UInt8(ascii: "\\"): guard let next = rest.popFirst(), RequestHead.isValueByte(next) else { return false }
                default: guard RequestHead.isValueByte(byte) else { return false }
                }
            }
            guard isClosed else { return false }
        }
        return true
    }

    /// Whether a line is a field that may stand in a trailer: one that decides nothing about the message.
    private static func isTrailer(_ line: ByteBuffer) -> Bool {
        line.withUnsafeReadableBytes { bytes in
            var at = 0
            return (try? RequestReader.trailer(bytes, &at)) == false && at == bytes.count
        }
    }
}

extension ByteBuffer {
    fileprivate var peekByte: UInt8? { getInteger(at: readerIndex) }
}
