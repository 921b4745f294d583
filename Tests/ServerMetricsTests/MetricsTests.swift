import Testing

@testable import ServerMetrics

@Suite struct MetricsTests {
    private func text(_ registry: MetricsRegistry) -> String { String(decoding: registry.exposition(), as: UTF8.self) }

    @Test func theExposition() {
        let registry = MetricsRegistry()
        registry.counter("c_total", help: "Back\\slash\nand \"line\".").add(3)
        registry.counter("l_total", help: "Labels.", labels: [("x", "a\"\\\nb"), ("y", "2")]).add()
        registry.gauge("g", help: "A gauge.") { 1.5 }
        registry.gauge("n", help: "None.") { .nan }
        let histogram = registry.histogram("h", help: "Sizes.", bounds: [1, 10], scale: 1)
        for value in [0, 1, 2, 10, 11, 100] as [UInt64] { histogram.record(value) }
        #expect(
            text(registry) == #"""
                # HELP c_total Back\\slash\nand "line".
                # TYPE c_total counter
                c_total 3
                # HELP l_total Labels.
                # TYPE l_total counter
                l_total{x="a\"\\\nb",y="2"} 1
                # HELP g A gauge.
                # TYPE g gauge
                g 1.5
                # HELP n None.
                # TYPE n gauge
                n NaN
                # HELP h Sizes.
                # TYPE h histogram
                h_bucket{le="1"} 2
                h_bucket{le="10"} 4
                h_bucket{le="+Inf"} 6
                h_sum 124
                h_count 6

                """#
        )
    }

    @Test func durationsAreShownInSeconds() {
        let registry = MetricsRegistry()
        registry.histogram("d_seconds", help: "").record(Duration.milliseconds(3))
        #expect(text(registry).contains("d_seconds_bucket{le=\"0.0025\"} 0\nd_seconds_bucket{le=\"0.005\"} 1\n"))
        #expect(text(registry).contains("d_seconds_sum 0.003\n"))
        #expect(
            text(registry).contains("d_seconds_bucket{le=\"0.00005\"} 0\n") || text(registry).contains("d_seconds_bucket{le=\"5e-05\"} 0\n")
        )
    }

    @Test func theSameNameAndLabelsAreTheSameFigure() {
        let registry = MetricsRegistry()
        #expect(registry.counter("a_total", help: "") === registry.counter("a_total", help: ""))
        #expect(registry.counter("a_total", help: "", labels: [("x", "1")]) !== registry.counter("a_total", help: ""))
        #expect(text(registry).components("# TYPE a_total") == 1)
    }

    @Test func labelsAreBounded() {
        let registry = MetricsRegistry()
        let family = registry.counters("f_total", help: "", labelNames: ["x"], capacity: 3)
        for index in 0..<100 { family.with("v\(index)").add() }
        #expect(text(registry).contains("f_total{x=\"v2\"} 1\n"))
        #expect(!text(registry).contains("v3"))
        #expect(text(registry).contains("f_total{x=\"other\"} 97\n"))
    }

    @Test func nothingIsLostBetweenThreads() async {
        let counter = Counter()
        let histogram = Histogram(bounds: [10], scale: 1)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    for value in 0..<5000 as Range<UInt64> {
                        counter.add()
                        histogram.record(value)
                    }
                }
            }
        }
        #expect(counter.value == 20_000)
        #expect(histogram.count == 20_000)
    }

    @Test("a histogram takes any duration")
    func histogram() {
        let registry = MetricsRegistry()
        let histogram = registry.histogram("age_seconds", help: "Ages")
        // The second is beyond 64 bits of nanoseconds, and would come round to a small number.
        for duration in [Duration.seconds(-5), .seconds(18_446_744_074), .seconds(Int64.max), .seconds(Int64.min)] {
            histogram.record(duration)
        }
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        #expect(text.contains("age_seconds_bucket{le=\"10\"} 2\n"))
        #expect(text.contains("age_seconds_count 4\n"))
    }

    @Test func theProcessIsMeasured() {
        let registry = MetricsRegistry()
        ProcessMetrics.register(in: registry)
        func value(_ name: String) -> Double {
            text(registry).split(separator: "\n").first { $0.hasPrefix(name + " ") }.flatMap { Double($0.dropFirst(name.count + 1)) }
                ?? .nan
        }
        #expect(value("process_resident_memory_bytes") > 1_000_000)
        #expect(value("process_open_fds") > 2)
        #expect(value("process_cpu_seconds_total") > 0)
        #expect(value("process_start_time_seconds") > 1_700_000_000)
    }
}

extension String {
    /// How often a text occurs.
    fileprivate func components(_ part: String) -> Int { split(separator: part, omittingEmptySubsequences: false).count - 1 }
}
