// The rows of the framing table. A is a request that changes something, S one that follows it in the same packet: whoever reads A's end in another place than
// the server does carries S out twice, never, or as part of A. Numbers are for ever: a row that goes leaves its number unused.

/// A list of rows under construction.
struct FramingCases {
    private(set) var rows: [FramingCase] = []

    /// Every row, in the order of their numbers.
    static let all: [FramingCase] = {
        var cases = FramingCases()
        cases.lengths()
        cases.lines()
        cases.codings()
        cases.chunks()
        cases.targets()
        cases.hosts()
        cases.versions()
        cases.asking()
        cases.fields()
        cases.connections()
        cases.bodies()
        cases.oddBytes()
        cases.sizes()
        cases.tails()
        return cases.rows.sorted { $0.number < $1.number }
    }()

    /// Adds a row. Without `gateway` the same is allowed through the gateway as directly, and more only where a server may answer or refuse: the gateway may
    /// then pass the request on in a form without doubt, which the server behind it refuses.
    mutating func add(
        _ number: Int,
        _ name: String,
        _ servers: Allowed,
        gateway: Allowed? = nil,
        _ traits: FramingCase.Traits = [],
        answers: Int = 2,
        method: String? = nil,
        _ steps: @escaping @Sendable (Draft, Draft) -> [Step]
    ) {
        rows.append(
            FramingCase(
                number: number,
                name: name,
                servers: servers,
                gateway: gateway ?? (servers == .answeredOrRefused ? .either : servers),
                traits: traits,
                answers: answers,
                method: method,
                steps: steps
            )
        )
    }

    /// Adds a row that is one packet: A bent, then S.
    mutating func bent(
        _ number: Int,
        _ name: String,
        _ servers: Allowed,
        gateway: Allowed? = nil,
        _ traits: FramingCase.Traits = [],
        _ bend: @escaping @Sendable (Draft) -> Draft
    ) {
        add(number, name, servers, gateway: gateway, traits) { a, s in [.send(bend(a).text + s.text)] }
    }
}
