import APIErrors
import StockContract
import StrictJSON
import Testing

/// A value of JSON with another at a path; nil takes the member away.
private func changed(_ value: JSONValue, _ path: ArraySlice<String>, to new: JSONValue?) -> JSONValue {
    guard let name = path.first else { return new ?? .null }
    switch value {
    case .object(let members):
        return .object(
            members.compactMap { member in
                guard member.name == name else { return member }
                if path.count == 1, new == nil { return nil }
                return JSONMember(name, changed(member.value, path.dropFirst(), to: new))
            }
        )
    case .array(let elements):
        return .array(elements.enumerated().map { $0.offset == 0 ? changed($0.element, path, to: new) : $0.element })
    default: return value
    }
}

private func text(_ value: JSONValue) -> [UInt8] {
    var json = JSONWriter()
    json.value(value)
    return json.bytes
}

/// A body with one member changed, found by its path; in a list the first element's.
private func body(_ body: [UInt8], _ path: String, _ new: JSONValue?) throws -> [UInt8] {
    text(changed(try JSONDocument(body).value, path.split(separator: ".").map(String.init)[...], to: new))
}

/// What can stand at no member that has to be something else.
private let odd: [JSONValue?] = [nil, .null, .bool(true), .double(1.5), .int(.min), .string("\u{1}"), .string(""), .array([]), .object([])]

@Suite("A message is read as it was written")
struct MessageTests {
    @Test(arguments: 0..<300 as Range<UInt64>)
    func commands(seed: UInt64) throws {
        var random = Random(seed: seed)
        let command = StockCommand(&random)
        #expect(try StockCommand(command.body) == command)
    }

    @Test(arguments: 0..<300 as Range<UInt64>)
    func results(seed: UInt64) throws {
        var random = Random(seed: seed)
        let message = StockResultMessage(&random)
        #expect(try StockResultMessage(message.body) == message)
    }

    @Test(arguments: 0..<300 as Range<UInt64>)
    func events(seed: UInt64) throws {
        var random = Random(seed: seed)
        let event = OrderEvent(&random)
        #expect(try OrderEvent(event.body) == event)
    }

    @Test(arguments: 0..<300 as Range<UInt64>)
    func batches(seed: UInt64) throws {
        var random = Random(seed: seed)
        let changes = random.some(1...6) { StockChange(&$0) }
        let capacity = changes.reduce(StockBatch.frameBytes) { $0 + $1.maximumWireBytes }
        let call = StockBatch.call(changes, capacity: capacity)
        #expect(call.bytes.count <= capacity, "a call is never longer than its items say")
        let read = try StockBatch.items(of: JSONObjectReader(call.bytes)).map { try StockChange($0) }
        #expect(read == changes)
    }

    @Test(arguments: 0..<300 as Range<UInt64>)
    func batchAnswers(seed: UInt64) throws {
        var random = Random(seed: seed)
        let codes = APIErrorCode.general + APIErrorCode.shop
        let answers = random.some(1...6) { random in
            random.bool()
                ? StockItemAnswer(
                    remainingStock: random.number(Values.remainingRange),
                    isReplayed: random.bool(),
                    message: random.text(1...30)
                )
                : StockItemAnswer(
                    APIError(
                        codes[Int.random(in: 0..<codes.count, using: &random)],
                        retryAfter: random.maybe { .seconds($0.number(0...86_400)) }
                    ),
                    language: random.bool() ? .english : .korean
                )
        }
        var json = JSONWriter()
        StockBatch.answer(answers, to: &json)
        let body = try JSONObjectReader(json.bytes)
        #expect(StockBatch.answers(body, count: answers.count) == answers)
        #expect(StockBatch.answers(body, count: answers.count + 1) == nil)
    }

    @Test("members that are not known are ignored")
    func more() throws {
        var random = Random(seed: 1)
        func more(_ body: [UInt8]) -> [UInt8] { Array(#"{"new":{"a":[1]},"#.utf8) + body.dropFirst() }
        let (command, result, event) = (StockCommand(&random), StockResultMessage(&random), OrderEvent(&random))
        #expect(try StockCommand(more(command.body)) == command)
        #expect(try StockResultMessage(more(result.body)) == result)
        #expect(try OrderEvent(more(event.body)) == event)
    }
}

@Suite("A message that is odd in one member is refused by that member's name")
struct OddMessageTests {
    @Test(arguments: ["version", "type", "messageId", "productId", "time", "orders", "orders.orderId", "orders.key", "orders.quantity"])
    func commands(path: String) throws {
        var random = Random(seed: 2)
        let whole = StockCommand(&random).body
        for value in odd {
            let name = try #require(path.split(separator: ".").last)
            do throws(PoisonCommand) {
                _ = try StockCommand(body(orFail: whole, path, value))
                Issue.record("\(path) was read as \(String(describing: value))")
            } catch {
                #expect(error.reason == .validationError)
                #expect(error.detail.contains(name) || name == "key", "\(path), \(String(describing: value)): \(error.detail)")
            }
        }
    }

    @Test(arguments: ["version", "type", "results", "results.orderId", "results.key", "results.outcome"])
    func results(path: String) throws {
        var random = Random(seed: 3)
        let whole = StockResultMessage(&random).body
        for value in odd {
            let name = try #require(path.split(separator: ".").last)
            do throws(StockResultMessage.Poison) {
                _ = try StockResultMessage(body(orFail: whole, path, value))
                Issue.record("\(path) was read as \(String(describing: value))")
            } catch {
                #expect(!error.code.isEmpty)
                #expect(error.detail.contains(name), "\(path), \(String(describing: value)): \(error.detail)")
            }
        }
    }

    @Test(
        arguments: [
            "version", "type", "time", "orders", "orders.id", "orders.productId", "orders.quantity", "orders.status", "orders.version",
            "orders.createdAt", "orders.updatedAt",
        ]
    )
    func events(path: String) throws {
        var random = Random(seed: 4)
        let whole = OrderEvent(&random).body
        for value in odd {
            let name = String(try #require(path.split(separator: ".").last))
            do throws(APIError) {
                _ = try OrderEvent(body(orFail: whole, path, value))
                Issue.record("\(path) was read as \(String(describing: value))")
            } catch {
                guard case .string(let field)? = error.details["field"] else {
                    Issue.record("no field: \(error)")
                    continue
                }
                #expect(error.code == .validationError && field.hasSuffix(name), "\(path), \(String(describing: value)): \(field)")
            }
        }
    }

    @Test(arguments: ["direction", "productId", "orderId", "quantity", "key"])
    func changes(name: String) throws {
        var random = Random(seed: 5)
        let whole = StockBatch.call([StockChange(&random)], capacity: 0).bytes
        for value in odd {
            let item = try StockBatch.items(of: JSONObjectReader(body(orFail: whole, "items.\(name)", value)))[0]
            do throws(APIError) {
                _ = try StockChange(item)
                Issue.record("\(name) was read as \(String(describing: value))")
            } catch {
                guard case .string(let field)? = error.details["field"] else {
                    Issue.record("no field: \(error)")
                    continue
                }
                #expect(error.code == .validationError && (field.hasSuffix(name) || name == "key"), "\(name): \(field)")
            }
        }
    }

    @Test("an item of a batch may leave out its attempt, its time and its request, and is refused for odd ones")
    func optionalMembers() throws {
        let item = #"{"direction":"OUT","productId":1,"orderId":2,"quantity":3,"key":"DEC-2""#
        func read(_ more: String) throws -> StockChange {
            try StockChange(StockBatch.items(of: JSONObjectReader(Array(#"{"items":[\#(item)\#(more)}]}"#.utf8)))[0])
        }
        #expect(try read("") == StockChange(direction: .out, productID: 1, orderID: 2, quantity: 3, key: "DEC-2", attempt: 1))
        for odd in [
            #","attempt":0"#, #","attempt":"1""#, #","since":"yesterday""#, #","since":1"#, #","requestId":"a b""#, #","requestId":7"#,
        ] {
            #expect(throws: APIError.self, "\(odd)") { try read(odd) }
        }
        // A decrease has no increase's key.
        #expect(throws: APIError.self) {
            try StockChange(JSONObjectReader(Array(#"{"direction":"IN","productId":1,"orderId":2,"quantity":3,"key":"DEC-2"}"#.utf8)))
        }
    }

    @Test("of poison the orders and their own keys are read, and a key that is no order's is replaced by the first run's")
    func poison() {
        let body =
            #"{"version":2,"productId":7,"orders":[{"orderId":7,"key":"DEC-7.2"},{"orderId":8,"key":"DEC-9"},{"orderId":9},{"key":"DEC-1"}]}"#
        do throws(PoisonCommand) {
            _ = try StockCommand(Array(body.utf8))
            Issue.record("it was read")
        } catch {
            #expect(error.productID == 7 && error.messageID == nil)
            #expect(error.orders.map(\.id) == [7, 8, 9])
            #expect(error.orders.map(\.key) == ["DEC-7.2", "DEC-8", "DEC-9"])
        }
    }
}

/// The changed body. The example is one that can be read.
private func body(orFail whole: [UInt8], _ path: String, _ value: JSONValue?) -> [UInt8] {
    do {
        return try body(whole, path, value)
    } catch {
        Issue.record("\(error)")
        return []
    }
}

@Suite struct StockKeyTests {
    @Test func runs() {
        for run in [1, 2, 10, 1_000_000_000, Int64.max] {
            for order in [1, 7, Int64.max] {
                #expect(StockKey.run(of: StockKey.decrease(order: order, run: run), order: order) == run)
                #expect(StockKey.increase(order: order, run: run).dropFirst(4) == StockKey.decrease(order: order, run: run).dropFirst(4))
            }
        }
        for odd in ["", "DEC-", "DEC-8", "DEC-70", "DEC-7.", "DEC-7.1", "DEC-7.0", "DEC-7.02", "DEC-7.-2", "DEC-7 ", "INC-7", "dec-7", "7"]
        {
            #expect(StockKey.run(of: odd, order: 7) == nil, "\(odd)")
        }
    }

    @Test func prefixes() throws {
        #expect(try StockKey.checkedDecrease("DEC-x") == "DEC-x")
        #expect(try StockKey.checkedIncrease("INC-x") == "INC-x")
        for odd in ["DEC-", "INC-x", "", "x"] { #expect(throws: APIError.self) { try StockKey.checkedDecrease(odd) } }
        for odd in ["INC-", "DEC-x", "", "x"] { #expect(throws: APIError.self) { try StockKey.checkedIncrease(odd) } }
    }

    @Test("of what a product server refuses only these decide")
    func decisions() {
        let deciding = (APIErrorCode.general + APIErrorCode.shop).filter { APIErrorCode.isDecision($0.rawValue) }
        #expect(
            Set(deciding) == [.insufficientStock, .productNotFound, .invalidState, .validationError, .keyClosed, .keyReused]
        )
    }
}
