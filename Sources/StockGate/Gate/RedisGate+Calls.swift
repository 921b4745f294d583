import NIOCore
import RedisClient

extension RedisGate {
    /// Runs a script by its digest, and by its source where Redis has lost it.
    func call(
        _ connection: RedisConnection,
        _ info: GateConnectionInfo,
        _ script: GateScript,
        keys: [String],
        argumentCount: Int,
        timeout: TimeAmount,
        arguments: @escaping (inout RedisCommandWriter) -> Void,
        answer: @escaping Answer<RedisValue>
    ) {
        func send(_ command: StaticString, _ body: String, _ completion: @escaping (Result<RedisValue, RedisError>) -> Void) {
            _ = connection.send(argumentCount: 3 + keys.count + argumentCount, deadline: .now() + timeout, completion: completion) {
                writer in
                writer.write(command)
                writer.write(body)
                writer.write(Int64(keys.count))
                for key in keys { writer.write(key) }
                arguments(&writer)
            }
        }
        send("EVALSHA", info.scripts[script.rawValue]) { result in
            switch result {
            case .success(let value): answer(.success(value))
            case .failure(let error) where error.serverError?.kind == .noScript:
                // Redis has lost the script (SCRIPT FLUSH), so the script has not run. Only in this case is a call sent again, now with the script's source.
                send("EVAL", script.source) { answer($0.mapError(GateFailure.init)) }
            case .failure(let error):
                // If the server became a replica while the connection stayed open, the client closes the connection behind this reply, and what the connection
                // learnt about the dataset goes with it.
                answer(.failure(GateFailure(error)))
            }
        }
    }
}
