package import HTTPTypes
package import NIOCore

/// How a client knows where an answer's body ends (RFC 9112, 6.3).
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
            writeStaticString("HTTP/1.1 200 OK\r\n")
        } else {
            writeStaticString("HTTP/1.1 ")
            writeString(String(status.code))
            writeStaticString(" ")
            writeString(status.reasonPhrase)
            writeStaticString("\r\n")
        }
    }

    /// Writes the head of an answer that a route has given.
    ///
    /// The front door decides what `Connection` says and how the body is transferred. The route's own fields for these are dropped.
    /// - Parameters:
    ///   - request: the request that is answered
    ///   - isLast: whether the connection ends after the answer; set where only that end can end the body
    /// - Returns: how the body has to be written
    package mutating func writeAnswerHead(_ head: HTTPResponse, to request: RequestHead, isLast: inout Bool) -> AnswerFraming {
        writeStatusLine(head.status)
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
            writeString(field.name.rawName)
            writeStaticString(": ")
            writeString(field.value)
            writeStaticString("\r\n")
        }
        if !hasID {
            writeStaticString("X-Request-Id: ")
            writeRequestID(request.id)
            writeStaticString("\r\n")
        }
        var framing = AnswerFraming.known
        if mayHaveBody, !hasLength {
            if request.isHTTP10 {
                framing = .untilClose
                isLast = true
            } else {
                framing = .chunked
                writeStaticString("Transfer-Encoding: chunked\r\n")
            }
        }
        writeConnection(to: request, isLast: isLast)
        writeStaticString("\r\n")
        return framing
    }

    /// Writes `Connection: close` behind the last answer, and `keep-alive` for a client of HTTP/1.0, which would take every answer for the last.
    package mutating func writeConnection(to request: RequestHead?, isLast: Bool) {
        if isLast {
            writeStaticString("Connection: close\r\n")
        } else if request?.isHTTP10 == true {
            writeStaticString("Connection: keep-alive\r\n")
        }
    }

    /// Writes one part of a body in chunks. An empty part is left out, because it would end the body.
    package mutating func writeChunk(_ part: inout ByteBuffer) {
        guard part.readableBytes > 0 else { return }
        writeString(String(part.readableBytes, radix: 16))
        writeStaticString("\r\n")
        writeBuffer(&part)
        writeStaticString("\r\n")
    }
}
