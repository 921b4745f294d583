import APIErrors
public import CircuitBreaker
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import ServiceLifecycle
import StrictJSON
import Synchronization

/// The admin port's view of the breakers: states, changes by hand, events. Under resilience4j's actuator paths the same in its shapes.
///
/// Bounds: at most `maximumFollowers` event streams at a time, more get 503. A stream gives its place back when its client goes. Each stream buffers 1,024
///   events for a slow reader and then drops the oldest, which the gap in `sequence` shows. A breaker that comes while a stream of all is open is in it within
///   a second.
public struct CircuitBreakerRoutes: Sendable {
    /// Event streams at a time.
    public static let maximumFollowers = 32

    private static let followBuffer = 1024
    /// How often an open stream looks for breakers that have come.
    private static let lookInterval: Duration = .milliseconds(500)

    private final class Followers: Sendable {
        let count = Atomic<Int>(0)
    }

    private let registry: CircuitBreakerRegistry
    private let heartbeat: Duration
    private let followers = Followers()

    /// Makes the routes.
    /// - Parameter heartbeat: how often a silent stream sends a comment; sending it fails where the reader's machine has gone without ending the connection
    public init(registry: CircuitBreakerRegistry, heartbeat: Duration = .seconds(15)) {
        self.registry = registry
        self.heartbeat = heartbeat
    }

    /// Adds, under `/admin` and `/actuator`, `GET …/circuitbreakers[/{name}]`, `POST …/circuitbreakers/{name}`,
    /// `GET …/circuitbreakerevents[/{name}]` and `GET /actuator/circuitbreakerevents/{name}/{eventType}`.
    public func register(on router: ServerRouter) {
        for shape in [Shape.admin, .actuator] {
            let prefix = shape.prefix
            router.get(RouterPath(prefix + "/circuitbreakers")) { _, _ in states(registry.breakers, as: shape) }
            router.get(RouterPath(prefix + "/circuitbreakers/{name}")) { _, context in states([try breaker(context)], as: shape) }
            router.post(RouterPath(prefix + "/circuitbreakers/{name}")) { request, context in
                try await change(try breaker(context), request, context, as: shape)
            }
            router.get(RouterPath(prefix + "/circuitbreakerevents"), query: ["follow"]) { request, context in
                try events(of: { registry.breakers }, request, context, as: shape)
            }
        }
        router.get("/admin/circuitbreakerevents/{name}", query: ["follow"]) { request, context in
            let breaker = try breaker(context)
            return try events(of: { [breaker] }, request, context, as: .admin)
        }
        // resilience4j answers an unknown name on this path like a breaker without events.
        router.get("/actuator/circuitbreakerevents/{name}", query: ["follow"]) { request, context in
            let named = named(context)
            return try events(of: { named }, request, context, as: .actuator)
        }
        router.get("/actuator/circuitbreakerevents/{name}/{eventType}", query: ["follow"]) { request, context in
            let text = context.parameters.get("eventType")?.uppercased() ?? ""
            guard let type = Resilience4j.EventType(rawValue: text) else {
                throw APIError.notAChoice(field: "eventType", Resilience4j.EventType.self)
            }
            let named = named(context)
            return try events(of: { named }, request, context, as: .actuator, type: type.rawValue)
        }
    }

    /// Whose shapes an answer has: this project's, which say more, or resilience4j's, byte for byte.
    private enum Shape {
        case admin
        case actuator

        var prefix: String {
            switch self {
            case .admin: "/admin"
            case .actuator: "/actuator"
            }
        }
    }

    private func named(_ context: ServerRequestContext) -> [CircuitBreaker] {
        context.parameters.get("name").flatMap { registry[$0] }.map { [$0] } ?? []
    }

    private func breaker(_ context: ServerRequestContext) throws(APIError) -> CircuitBreaker {
        guard let name = context.parameters.get("name"), let breaker = registry[name] else { throw APIError(.notFound) }
        return breaker
    }

    // MARK: States

    private func states(_ breakers: [CircuitBreaker], as shape: Shape) -> Response {
        .json { json in
            json.object { json in
                json.object("circuitBreakers") { json in
                    for breaker in breakers.sorted(by: { $0.name < $1.name }) {
                        json.name(breaker.name)
                        switch shape {
                        case .admin: json.value(breaker.snapshot())
                        case .actuator: json.resilience4jValue(breaker.snapshot(), configuration: breaker.configuration)
                        }
                    }
                }
            }
        }
    }

    private func change(
        _ breaker: CircuitBreaker,
        _ request: Request,
        _ context: ServerRequestContext,
        as shape: Shape
    ) async throws -> Response {
        let body = try await request.jsonObject()
        let update = try body.choice("updateState", ManualTransition.self)
        let reason = try body.optionalString("reason", length: Values.reasonLength)
        let before = breaker.state
        let after = breaker.transition(to: update, by: context.actor, reason: reason)
        context.logger.notice(
            "circuit breaker changed by hand",
            metadata: [
                "breaker": "\(breaker.name)", "updateState": "\(update.rawValue)", "from": "\(before.rawValue)", "to": "\(after.rawValue)",
                "by": "\(context.actor ?? "-")", "reason": "\(reason ?? "-")",
            ]
        )
        let closing = shape == .admin && (update == .close || update == .reset) && after == .halfOpen
        return .json { json in
            json.object { json in
                json.member("circuitBreakerName", breaker.name)
                json.member("currentState", after.rawValue)
                json.member(
                    "message",
                    closing
                        ? "\(breaker.name) closes when its recovery has passed" : "\(breaker.name) state has been changed successfully"
                )
            }
        }
    }

    // MARK: Events

    private func events(
        of breakers: @escaping @Sendable () -> [CircuitBreaker],
        _ request: Request,
        _ context: ServerRequestContext,
        as shape: Shape,
        type: String? = nil
    ) throws -> Response {
        if try request.querySwitch("follow") {
            return try stream(of: breakers, on: context.channel, as: shape, type: type)
        }
        let events = CircuitBreakerRoutes.recent(of: breakers()).map(\.event)
            .filter { CircuitBreakerRoutes.shows($0, as: shape, type: type) }
        return .json { json in
            json.object { json in
                json.array("circuitBreakerEvents", events) { CircuitBreakerRoutes.write($1, as: shape, to: &$0) }
            }
        }
    }

    private static func shows(_ event: CircuitBreakerEvent, as shape: Shape, type: String?) -> Bool {
        (shape == .admin || Resilience4j.knows(event)) && (type == nil || type == event.kind.name)
    }

    private static func write(_ event: CircuitBreakerEvent, as shape: Shape, to json: inout JSONWriter) {
        switch shape {
        case .admin: json.value(event)
        case .actuator: json.resilience4jValue(event)
        }
    }

    /// Oldest first, over all of the breakers, each event with its breaker's place.
    private static func recent(of breakers: [CircuitBreaker]) -> [(source: Int, event: CircuitBreakerEvent)] {
        // Equal times of one breaker stay in its own order: the sort is by time, then by sequence.
        breakers.enumerated().flatMap { source, breaker in breaker.recentEvents().map { (source, $0) } }
            .sorted { ($0.event.unixMilliseconds, $0.event.sequence) < ($1.event.unixMilliseconds, $1.event.sequence) }
    }

    /// Gives the events of all breakers to `yield` until the task is cancelled, those of breakers that come meanwhile included; nil at each heartbeat. Each breaker
    /// is a source of its own: one that comes under the name of one that has gone begins its sequence anew.
    private static func follow(
        _ breakers: @escaping @Sendable () -> [CircuitBreaker],
        from first: [(breaker: CircuitBreaker, events: CircuitBreakerEvents)],
        heartbeat: Duration,
        yield: @escaping @Sendable ((source: Int, event: CircuitBreakerEvent)?) -> Void
    ) async {
        await withTaskGroup(of: Void.self) { group in
            for (source, one) in first.enumerated() {
                group.addTask { for await event in one.events { yield((source, event)) } }
            }
            var followed = first.map(\.breaker)
            var sources = first.count
            var beat = ContinuousClock.now
            while !Task.isCancelled {
                if ContinuousClock.now >= beat {
                    yield(nil)
                    beat = .now + heartbeat
                }
                let all = breakers()
                for breaker in all where !followed.contains(where: { $0 === breaker }) {
                    let (source, events) = (sources, breaker.events(bufferCapacity: followBuffer))
                    sources += 1
                    for event in breaker.recentEvents() { yield((source, event)) }
                    group.addTask { for await event in events { yield((source, event)) } }
                }
                followed = all
                try? await Task.sleep(for: min(heartbeat, lookInterval))
            }
        }
    }

    private func stream(
        of breakers: @escaping @Sendable () -> [CircuitBreaker],
        on channel: any Channel,
        as shape: Shape,
        type: String?
    ) throws(APIError) -> Response {
        guard followers.count.wrappingAdd(1, ordering: .relaxed).newValue <= CircuitBreakerRoutes.maximumFollowers else {
            followers.count.wrappingSubtract(1, ordering: .relaxed)
            throw APIError(.overloaded, retryAfter: .seconds(5))
        }
        // The count goes down when the last reference to this is released, also if the body is never written.
        let place = FollowerPlace { [followers] in followers.count.wrappingSubtract(1, ordering: .relaxed) }
        let heartbeat = self.heartbeat
        let body = ResponseBody { writer in
            defer { withExtendedLifetime(place) {} }
            let first = breakers().map { (breaker: $0, events: $0.events(bufferCapacity: CircuitBreakerRoutes.followBuffer)) }
            // An event between the subscription and this line is in both lists: its second copy is left out.
            let recent = CircuitBreakerRoutes.recent(of: first.map(\.breaker))
            var last: [Int: UInt64] = [:]
            for (source, event) in recent {
                last[source] = event.sequence
                guard CircuitBreakerRoutes.shows(event, as: shape, type: type) else { continue }
                try await writer.write(CircuitBreakerRoutes.serverSentEvent(event, as: shape))
            }
            let (events, continuation) = AsyncStream<(source: Int, event: CircuitBreakerEvent)?>.makeStream(
                bufferingPolicy: .bufferingNewest(CircuitBreakerRoutes.followBuffer)
            )
            let feed = Task {
                // A stop of the server ends the streams. Otherwise the stop would wait for ever for readers that stay.
                await cancelWhenGracefulShutdown {
                    await CircuitBreakerRoutes.follow(breakers, from: first, heartbeat: heartbeat) { continuation.yield($0) }
                }
                continuation.finish()
            }
            defer { feed.cancel() }
            // A silent stream writes nothing before its next heartbeat, and so would not notice until then that its client has gone. The channel tells it at
            // once.
            try await DisconnectHandler.watch(channel) {
                continuation.finish()
            } during: {
                for await item in events {
                    guard let (source, event) = item else {
                        try await writer.write(ByteBuffer(string: ":\n\n"))
                        continue
                    }
                    if let known = last[source], event.sequence <= known { continue }
                    last[source] = event.sequence
                    guard CircuitBreakerRoutes.shows(event, as: shape, type: type) else { continue }
                    try await writer.write(CircuitBreakerRoutes.serverSentEvent(event, as: shape))
                }
            }
            try await writer.finish(nil)
        }
        return Response(
            status: .ok,
            headers: [.contentType: "text/event-stream", .cacheControl: "no-store"],
            body: body
        )
    }

    private static func serverSentEvent(_ event: CircuitBreakerEvent, as shape: Shape) -> ByteBuffer {
        var json = JSONWriter()
        write(event, as: shape, to: &json)
        return ByteBuffer(string: "id: \(event.breaker)-\(event.sequence)\nevent: \(event.kind.name)\ndata: \(json.string)\n\n")
    }
}

/// Runs a closure once, when the last reference to it is released.
private final class FollowerPlace: Sendable {
    private let leave: @Sendable () -> Void

    init(leave: @escaping @Sendable () -> Void) { self.leave = leave }

    deinit { leave() }
}

extension JSONWriter {
    /// A breaker with resilience4j's names, with the end of its wait besides.
    mutating func value(_ breaker: CircuitBreakerSnapshot) {
        object { json in
            json.member("state", breaker.state.rawValue)
            json.member("failureRate", JSONWriter.percent(breaker.failureRate))
            json.member("slowCallRate", JSONWriter.percent(breaker.slowCallRate))
            json.member("failureRateThreshold", JSONWriter.percent(breaker.failureRateThreshold))
            json.member("slowCallRateThreshold", JSONWriter.percent(breaker.slowCallRateThreshold))
            json.member("bufferedCalls", breaker.bufferedCalls)
            json.member("failedCalls", breaker.failedCalls)
            json.member("slowCalls", breaker.slowCalls)
            json.member("slowFailedCalls", breaker.slowFailedCalls)
            json.member("notPermittedCalls", breaker.notPermittedCalls)
            json.member("openUntil", breaker.openUntilUnixMilliseconds.map { Timestamp(microsecondsSinceEpoch: $0 * 1000) })
        }
    }

    /// A rate with one decimal; `-1.0%` while there are fewer calls than the minimum, as resilience4j has it.
    private static func percent(_ rate: Double?) -> String {
        let tenths = Int(((rate ?? -1) * 10).rounded())
        return "\(tenths < 0 ? "-" : "")\(abs(tenths) / 10).\(abs(tenths) % 10)%"
    }

    /// An event with the names of resilience4j's event endpoint, and after them what it does not have.
    mutating func value(_ event: CircuitBreakerEvent) {
        var errorMessage: String?
        var duration: Duration?
        var stateTransition: String?
        var reason: String?
        var count: UInt64?
        switch event.kind {
        case .transition(let from, let to, let why):
            stateTransition = "\(from.rawValue)_TO_\(to.rawValue)"
            reason = why.description
        case .error(let label, let took): (errorMessage, duration) = (label, took)
        case .slowCall(let took, let failed): (duration, reason) = (took, failed ? "failed" : nil)
        case .callsRejected(let rejected): count = rejected
        case .recoveryStarted(let attempt): count = UInt64(clamping: attempt)
        case .recoveryPassed(let took): duration = took
        case .recoveryFailed(let label, let took): (errorMessage, duration) = (label, took)
        case .healthCheck(let passed): reason = passed ? "passed" : "failed"
        case .failureRateReached(let percent), .slowCallRateReached(let percent): reason = JSONWriter.percent(percent)
        case .closeRequested(let by, let why), .reset(let by, let why):
            reason = [by, why].compactMap { $0 }.joined(separator: ": ")
        case .permitLeaseEnded, .rampEnded: break
        }
        object { json in
            json.member("circuitBreakerName", event.breaker)
            json.member("type", event.kind.name)
            json.member("creationTime", Timestamp(microsecondsSinceEpoch: event.unixMilliseconds * 1000))
            json.member("errorMessage", errorMessage)
            json.member("durationInMs", duration.map { $0.components.seconds * 1000 + $0.components.attoseconds / 1_000_000_000_000_000 })
            json.member("stateTransition", stateTransition)
            json.member("reason", reason)
            json.member("count", count)
            json.member("sequence", event.sequence)
        }
    }
}
