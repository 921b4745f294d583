public import APIErrors
public import HotPath
import HTTPTypes
public import NIOCore

/// A request on a hot path that is being worked on, from its head to its answer, which is measured. Used on the connection's event loop alone.
public struct HotCall {
    private let metrics: RouteMetrics
    private let began = ContinuousClock.now
    private let head: RequestHead
    private let answer: (HotPathAnswer) -> Void

    /// A request begins.
    /// - Parameter answer: writes the answer; called once
    public init(_ head: RequestHead, _ metrics: RouteMetrics, answer: @escaping (HotPathAnswer) -> Void) {
        self.head = head
        self.metrics = metrics
        self.answer = answer
        metrics.started()
    }

    /// Reads the body. Where that fails the error is the answer, and there is nothing left to do.
    public func read<Value>(_ body: ByteBuffer, _ read: (JSONObjectReader) throws(APIError) -> Value) -> Value? {
        do throws(APIError) {
            return try read(JSONObjectReader(body.readableBytesView))
        } catch {
            finish(HotPathAnswer(error, to: head))
            return nil
        }
    }

    /// Answers the request.
    public func finish(_ result: HotPathAnswer) {
        metrics.finished(status: result.status.code, after: ContinuousClock.now - began)
        answer(result)
    }

    /// Answers the request with a result, or with the error that says why there is none.
    public func finish(_ result: () throws(APIError) -> HotPathAnswer) {
        do throws(APIError) {
            finish(try result())
        } catch {
            finish(HotPathAnswer(error, to: head))
        }
    }
}
