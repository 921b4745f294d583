import ProfileKit
import Testing

@Suite("Flame graphs")
struct FlameGraphTests {
    private let perf = """
        server 
        \t            7f01 write
        \t            7f02 Shop.sell(_:)
        \t            7f03 main

        server 
        \t            7f01 write
        \t            7f04 Shop.cancel<A & B>(_:)
        \t            7f03 main

        server 
        \t            7f02 Shop.sell(_:)
        \t            7f03 main
        [perf record: something else]
        server 
        \t            7f03 main
        """

    @Test func stacksThatBeginAlikeAreOne() throws {
        let root = StackSamples(perfScript: perf).root
        #expect(root.total == 4 && root.own == 0)
        let main = try #require(root.callees.first)
        #expect(root.callees.count == 1 && main.name == "main" && main.total == 4 && main.own == 1)
        #expect(main.callees.map(\.name) == ["Shop.cancel<A & B>(_:)", "Shop.sell(_:)"])
        #expect(main.callees.map(\.total) == [1, 2] && main.callees.map(\.own) == [0, 1])
    }

    @Test func whatCostsMostOfItsOwnComesFirst() {
        let top = StackSamples(perfScript: perf).top(2)
        #expect(top.map(\.name) == ["write", "Shop.sell(_:)"] && top.map(\.own) == [2, 1])
    }

    @Test func aBoxIsAsWideAsItsShare() {
        let svg = FlameGraph(title: "a < b", StackSamples(perfScript: perf)).svg
        #expect(svg.contains("a &lt; b; 4 samples"))
        #expect(svg.contains("<title>Shop.sell(_:): 50.0 %</title><rect class=\"code\" x=\"305.0\" y=\"-48\" width=\"590.0\""))
        #expect(
            svg.contains("<title>Shop.cancel&lt;A &amp; B&gt;(_:): 25.0 %</title><rect class=\"code\" x=\"10.0\" y=\"-48\" width=\"295.0\"")
        )
    }

    @Test func nothingSeenIsAnEmptyDrawing() {
        let samples = StackSamples(perfScript: "perf: no such file\n")
        #expect(samples.root.total == 0 && samples.top(5).isEmpty)
        #expect(FlameGraph(title: "", samples).svg.contains("</svg>"))
    }

    @Test func aStackWithoutEndIsCut() {
        let samples = StackSamples(perfScript: "server\n" + String(repeating: "\t 7f01 again\n", count: 5_000))
        var depth = 0
        var at = samples.root
        while let next = at.callees.first { (at, depth) = (next, depth + 1) }
        #expect(depth == StackSamples.maximumDepth && at.own == 1)
    }
}
