// Every row at every target. Directly several at a time; through the gateway one after another, each followed by what other buyers do meanwhile, so that
// any harm to them comes from the row sent just before.

import Foundation

/// The framing table, and the odd requests through the gateway.
struct FramingPart {
    let stand: Stand
    let requests: Requests
    let rows: [FramingCase]
    let targets: [Target]
    let patience: Duration
    /// What a slow machine may add to `100 Continue`.
    let slack: Duration
    /// True: six requests of others are sent three times for each row: behind the whole row, behind a changing request alone, and behind a reading one alone.
    /// False: only those to the row's own server are sent, once.
    let isThorough: Bool

    /// What became of each row at each target.
    typealias Table = [Int: [Target: (outcome: Outcome, effects: Effects, statuses: [Int])]]

    private struct Item: Sendable {
        var row: FramingCase
        var target: Target
    }

    private struct Seen: Sendable {
        var item: Item
        var transcript: Transcript?
        var failure: String?
        /// How requests of others were harmed.
        var harmed: [String] = []
        var bystanders = 0
    }

    private func drafts(_ item: Item) -> (first: Draft, second: Draft, probe: Draft) {
        let number = (item.row.number * 16 + item.target.rawValue) * 4
        let port = stand.port(of: item.target)
        return (
            requests.changing(item.target, number, port: port), requests.changing(item.target, number + 1, port: port),
            requests.probe(item.target, number + 2, port: port)
        )
    }

    private func perform(_ item: Item) -> Seen {
        let (first, second, probe) = drafts(item)
        let row = item.row
        let exchange = Exchange(port: stand.port(of: item.target), patience: patience)
        do {
            let transcript = try exchange.perform(
                row.steps(first, second),
                answers: row.answers,
                methods: row.method.map { [$0] } ?? [],
                probe: row.traits.contains(.isIncomplete) ? nil : probe.text
            )
            return Seen(item: item, transcript: transcript)
        } catch {
            return Seen(item: item, failure: "\(error)")
        }
    }

    /// - Returns: the reports of the table and of the odd requests, and the table
    func run(_ effects: EffectReader) async throws -> (framing: PartReport, odd: PartReport, table: Table) {
        let began = ContinuousClock.now
        let direct = targets.filter { !$0.isGateway }
        let through = targets.filter(\.isGateway)
        let items = { (targets: [Target]) in rows.flatMap { row in targets.map { Item(row: row, target: $0) } } }
        // A short run sends several rows through the gateway at the same time, and does not watch what happens to other buyers.
        var seen = await Workers.map(items(isThorough ? direct : targets), workers: 8) { perform($0) }
        let pairsTook = ContinuousClock.now - began
        let gatewayItems = items(isThorough ? through : through.filter { [.gatewayProductHot, .gatewayOrderHot].contains($0) })
        let besideOthers = try await Workers.run { throughGateway(gatewayItems) }
        if isThorough { seen += besideOthers }
        let counts = try await effects.settled()

        var framing = PartReport(name: "framing", took: pairsTook)
        var odd = PartReport(name: "odd requests through the gateway", took: ContinuousClock.now - began - pairsTook)
        var table: Table = [:]
        for one in seen {
            let (item, subject) = (one.item, "\(one.item.row.number) \(one.item.row.name)")
            framing.cases += 1
            guard let transcript = one.transcript else {
                let text = one.failure ?? "no connection"
                framing.violations.append(
                    Violation(part: "framing", subject: subject, place: item.target.name, rule: .noAnswer, text: text)
                )
                continue
            }
            let (first, second, probe) = drafts(item)
            let found = Effects(first: first.effect.map { counts[$0] ?? 0 }, second: second.effect.map { counts[$0] ?? 0 })
            let judge = Judge(row: item.row, target: item.target, first: first, second: second, probe: probe, slack: slack)
            let (outcome, violations) = judge.judge(transcript, found)
            framing.count(outcome)
            framing.violations += violations
            table[item.row.number, default: [:]][item.target] = (outcome, found, transcript.answers.map(\.status))
        }
        for one in besideOthers {
            odd.cases += one.bystanders
            odd.answered += one.bystanders - one.harmed.count
            let subject = "\(one.item.row.number) \(one.item.row.name)"
            for text in one.harmed {
                odd.violations.append(Violation(part: "odd", subject: subject, place: one.item.target.name, rule: .bystander, text: text))
            }
        }
        for row in rows {
            framing.violations += Judge.compare(row, (table[row.number] ?? [:]).mapValues { ($0.outcome, $0.effects) })
        }
        odd.notes.append(
            "\(gatewayItems.count) odd requests, each followed by \(isThorough ? "six of others, three times" : "some of others")"
        )
        return (framing, odd, table)
    }

    /// Sends the rows one after another, each with proper requests of others behind it.
    private func throughGateway(_ items: [Item]) -> [Seen] {
        let others = (0..<6).map { _ in Bystander(port: stand.gatewayPort) }
        var number = 1_000_000
        return items.map { item in
            var seen = isThorough ? perform(item) : Seen(item: item)
            let port = stand.port(of: item.target)
            let name = (item.row.number * 16 + item.target.rawValue) * 4 + 3
            // What follows the odd request on its own connection may take the harm on itself. So the odd request is sent alone as well, as a request that
            // changes something and as one that reads, which another handler of the server may answer.
            let alone = [requests.changing(item.target, name, port: port), requests.reading(item.target, name, port: port)]
            let rounds: [Draft?] = isThorough ? [nil] + alone : [alone[(item.row.number + item.target.rawValue) % 2]]
            // A short run sends only requests to the same server: these share connections with the odd one.
            let harmed = isThorough ? Array(0..<6) : item.target.isProduct ? [0, 1] : [2, 3, 4]
            for round in rounds {
                if let round { sendAlone(item, round) }
                for index in harmed {
                    number += 1
                    seen.bystanders += 1
                    if let why = others[index].ask(proper(index, number), within: patience * 2) { seen.harmed.append(why) }
                }
            }
            return seen
        }
    }

    /// The odd request with nothing behind it, by a client that leaves when it has its answer.
    private func sendAlone(_ item: Item, _ draft: Draft) {
        var nothing = draft
        nothing.isAbsent = true
        guard let connection = try? Connection(port: stand.port(of: item.target)) else { return }
        for step in item.row.steps(draft, nothing) {
            switch step {
            case .send(let text): connection.send(text)
            case .awaitInterim: _ = connection.receive(until: .now + .milliseconds(300))
            case .pause(let milliseconds): usleep(UInt32(milliseconds) * 1_000)
            case .finishSending: connection.finishSending()
            }
        }
        _ = try? Caller.answer(on: connection, to: item.row.method ?? "GET", within: .milliseconds(500))
    }

    private func proper(_ index: Int, _ number: Int) -> Draft {
        let port = stand.gatewayPort
        return switch index {
        case 0: requests.reading(.gatewayProductHot, number, port: port)
        case 1: requests.bodiless("GET", "/product-service/livez", number, port)
        case 2: requests.bodiless("GET", "/order-service/livez", number, port)
        case 3: requests.changing(.gatewayOrderHot, number, port: port)
        case 4: requests.reading(.gatewayOrderHot, number, port: port)
        default: requests.changing(.gatewayOrderAsync, number, port: port)
        }
    }
}
