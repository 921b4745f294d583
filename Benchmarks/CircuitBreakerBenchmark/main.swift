// Measures the breaker and prints a table. Exits with 1 when an operation allocates more than its threshold; times are printed beside their
// goal, for they depend on the machine: `--strict-times` makes them count as well.

import CircuitBreaker
import Glibc

struct Case {
    let name: String
    /// Nanoseconds a call should take less than.
    var goal: Double?
    /// Allocations per 1,000 calls above which the benchmark fails.
    var allowedPerThousand = 0.0
    var threads = 1
    let body: (_ times: Int) -> Void
}

func monotonicNanoseconds() -> Int64 {
    var value = timespec()
    _ = clock_gettime(CLOCK_MONOTONIC, &value)
    return Int64(value.tv_sec) * 1_000_000_000 + Int64(value.tv_nsec)
}

/// The best of many short rounds: what the code costs where nothing else disturbs it. A round is shorter than a scheduler's slice, so that some
/// are undisturbed on a busy machine too.
func nanosecondsPerCall(_ entry: Case) -> Double {
    let (rounds, iterations) = entry.threads == 1 ? (200, 10_000) : (10, 500_000)
    entry.body(10_000)
    var best = Double.infinity
    for _ in 0..<rounds {
        let start = monotonicNanoseconds()
        entry.body(iterations)
        best = min(best, Double(monotonicNanoseconds() - start) / Double(iterations))
    }
    return best
}

final class ThreadBody: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

/// Runs `body` on `count` threads at once and waits for all.
func onThreads(_ count: Int, _ body: @escaping @Sendable () -> Void) {
    var threads: [pthread_t] = []
    for _ in 0..<count {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(ThreadBody(body)).toOpaque()
        let status = pthread_create(
            &thread,
            nil,
            { context in
                if let context { Unmanaged<ThreadBody>.fromOpaque(context).takeRetainedValue().run() }
                return nil
            },
            context
        )
        precondition(status == 0, "cannot start a thread")
        threads.append(thread)
    }
    for thread in threads { pthread_join(thread, nil) }
}

func settings(_ change: (inout CircuitBreakerConfiguration.Values) -> Void) -> CircuitBreakerConfiguration {
    do {
        return try CircuitBreakerConfiguration(change)
    } catch {
        print("settings refused: \(error)")
        exit(2)
    }
}

@inline(never)
func callSuccessfully(_ breaker: CircuitBreaker, _ times: Int) {
    for _ in 0..<times {
        if case .permitted(let permit) = breaker.admit() { breaker.record(.success, for: permit) }
    }
}

@inline(never)
func callMixed(_ breaker: CircuitBreaker, _ times: Int) {
    for index in 0..<times {
        if case .permitted(let permit) = breaker.admit() {
            breaker.record(index % 10 == 0 ? .failure("refused") : .success, for: permit)
        }
    }
}

@inline(never)
func admitOnly(_ breaker: CircuitBreaker, _ times: Int) {
    for _ in 0..<times { _ = breaker.admit() }
}

var cases: [Case] = []

let counting = CircuitBreaker(name: "count")
cases.append(Case(name: "closed, admit + record, count-based window", goal: 50) { callSuccessfully(counting, $0) })

let timed = CircuitBreaker(name: "time", configuration: settings { $0.window = .time(seconds: 10) })
cases.append(Case(name: "closed, admit + record, time-based window", goal: 50) { callSuccessfully(timed, $0) })

let short = CircuitBreaker(name: "short", configuration: settings { $0.slowCallDurationThreshold = .milliseconds(40) })
cases.append(Case(name: "closed, admit + record, slow from 40 ms", goal: 50) { callSuccessfully(short, $0) })

let exact = CircuitBreaker(name: "exact", clock: .monotonic)
cases.append(Case(name: "closed, admit + record, exact clock") { callSuccessfully(exact, $0) })

let mixed = CircuitBreaker(name: "mixed")
cases.append(Case(name: "closed, admit + record, one in ten fails") { callMixed(mixed, $0) })

let disabled = CircuitBreaker(name: "disabled")
disabled.transition(to: .disable)
cases.append(Case(name: "disabled, admit + record") { callSuccessfully(disabled, $0) })

let open = CircuitBreaker(name: "open", configuration: settings { $0.waitInOpen = .constant(.seconds(86_400)) })
for _ in 0..<20 { if case .permitted(let permit) = open.admit() { open.record(.failure(), for: permit) } }
precondition(open.state == .open)
// The breaker publishes one event a second about rejections, however many there are.
cases.append(Case(name: "open, admit (rejected)", goal: 20) { admitOnly(open, $0) })

let forced = CircuitBreaker(name: "forced")
forced.transition(to: .forceOpen)
cases.append(Case(name: "forced open, admit (rejected)", goal: 20) { admitOnly(forced, $0) })

// Two threads, one breaker: the time a call takes on each. Each round starts two threads, which allocates a little.
let contended = CircuitBreaker(name: "contended")
cases.append(
    Case(name: "closed, admit + record, two threads", goal: 100, allowedPerThousand: 1, threads: 2) { times in
        onThreads(2) { callSuccessfully(contended, times) }
    }
)
let contendedMixed = CircuitBreaker(name: "contended, mixed")
cases.append(
    Case(name: "the same, one in ten fails", allowedPerThousand: 1, threads: 2) { times in
        onThreads(2) { callMixed(contendedMixed, times) }
    }
)
cases.append(
    Case(name: "open, admit (rejected), two threads", allowedPerThousand: 1, threads: 2) { times in
        onThreads(2) { admitOnly(open, times) }
    }
)
// This one must be seen to allocate: a counter that never counts would pass every operation.
cases.append(
    Case(name: "control: the last events", allowedPerThousand: .infinity) { for _ in 0..<($0 / 1_000) { _ = mixed.recentEvents() } }
)

// The counter makes every reference count dearer, so that all times are taken before it is put in.
let times = cases.map { nanosecondsPerCall($0) }
guard installAllocationCounter() > 0 else {
    print("FAILED: allocations cannot be counted on this system")
    exit(1)
}
let calls = 100_000
let counts = cases.map { entry in Double(allocations { entry.body(calls) }) * 1_000 / Double(calls) }

func padded(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(width - text.count, 0)) }
func number(_ value: Double) -> String {
    let hundredths = Int((value * 100).rounded())
    let digits = hundredths % 100
    return "\(hundredths / 100).\(digits < 10 ? "0" : "")\(digits)"
}

print("| operation                                  | ns per call | goal | allocations per 1,000 calls | allowed |")
print("|--------------------------------------------|-------------|------|-----------------------------|---------|")
var failures: [String] = []
for ((entry, time), count) in zip(zip(cases, times), counts) {
    let allowed = entry.allowedPerThousand == .infinity ? "any" : number(entry.allowedPerThousand)
    print(
        "| \(padded(entry.name, 42)) | \(padded(number(time), 11)) | \(padded(entry.goal.map { "\(Int($0))" } ?? "", 4)) "
            + "| \(padded(number(count), 27)) | \(padded(allowed, 7)) |"
    )
    if count > entry.allowedPerThousand { failures.append("\(entry.name): \(number(count)) allocations per 1,000 calls") }
    if allowed == "any", count == 0 { failures.append("the allocation counter does not count") }
    if CommandLine.arguments.contains("--strict-times"), let goal = entry.goal, time >= goal {
        failures.append("\(entry.name): \(number(time)) ns")
    }
}
for failure in failures { print("FAILED: \(failure)") }
exit(failures.isEmpty ? 0 : 1)
