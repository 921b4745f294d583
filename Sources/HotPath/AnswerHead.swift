package import HTTPTypes
package import NIOCore

/// How an answer's body is told apart from what follows it (RFC 9112, 6.3).
package enum AnswerFraming: Equatable {
    /// There is no body, or its length stands in the head.
    case known
    /// Chunks, the last of them empty.
    case chunked
    /// The body ends with the connection.
    case untilClose
}

extension ByteBuffer {
    /// Writes the first line of an answer.
    package mutating func writeStatusLine(_ status: HTTPResponse.Status) {
        if status == .ok {
            self.writeStaticString("HTTP/1.1 200 OK\r\n")
        } else {
            self.writeStaticString("HTTP/1.1 ")
            self.writeString(String(status.code))
            self.writeStaticString(" ")
            self.writeString(status.reasonPhrase)
            self.writeStaticString("\r\n")
        }
    }

    /// Writes the head of an answer that a route has given.
    ///
    /// The front door decides what `Connection` says and how the body is transferred. What the route says of these is dropped.
    /// - Parameters:
    ///   - request: what is answered
    ///   - isLast: whether the connection ends behind the answer
    /// - Returns: how the body has to be written
    package mutating func writeAnswerHead(_ head: HTTPResponse, to request: HotRequestHead, isLast: inout Bool) -> AnswerFraming {
        self.writeStatusLine(head.status)
        let mayHaveBody = head.status.code >= 200 && head.status.code != 204 && head.status.code != 304
        var hasLength = false
        var hasID = false
        for field in head.headerFields {
            switch field.name {
            case .connection, .transferEncoding, .upgrade: continue
            case .contentLength:
                guard mayHaveBody else { continue }
                hasLength = true
            case .requestID: hasID = true
            default: break
            }
            self.writeString(field.name.rawName)
            self.writeStaticString(": ")
            self.writeString(field.value)
            self.writeStaticString("\r\n")
        }
        if !hasID {
            self.writeStaticString("X-Request-Id: ")
            self.writeRequestID(request.id)
            self.writeStaticString("\r\n")
        }
        var framing = AnswerFraming.known
        if mayHaveBody, !hasLength {
            if request.isHTTP10 {
                framing = .untilClose
                isLast = true
            } else {
                framing = .chunked
                self.writeStaticString("Transfer-Encoding: chunked\r\n")
            }
        }
        self.writeConnection(to: request, isLast: isLast)
        self.writeStaticString("\r\n")
        return framing
    }

    /// Writes what the connection does behind the answer, where the client would expect something else.
    package mutating func writeConnection(to request: HotRequestHead?, isLast: Bool) {
        if isLast {
            self.writeStaticString("Connection: close\r\n")
        } else if request?.isHTTP10 == true {
            self.writeStaticString("Connection: keep-alive\r\n")
        }
    }

    /// Writes one part of a body in chunks. An empty part is left out, because it would end the body.
    package mutating func writeChunk(_ part: inout ByteBuffer) {
        guard part.readableBytes > 0 else { return }
        self.writeString(String(part.readableBytes, radix: 16))
        self.writeStaticString("\r\n")
        self.writeBuffer(&part)
        self.writeStaticString("\r\n")
    }
}
