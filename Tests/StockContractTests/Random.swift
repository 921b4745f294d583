import APIErrors
import SeededRandom
import StockContract
import StrictJSON

/// Random values of the kinds that messages are made of: the same in every run.
struct Random: RandomNumberGenerator {
    private var generator: SplitMix64

    init(seed: UInt64) { generator = SplitMix64(seed: seed) }

    mutating func next() -> UInt64 { generator.next() }

    mutating func bool() -> Bool { Bool.random(using: &self) }

    /// A number of the range, often one of its ends.
    mutating func number(_ range: ClosedRange<Int64>) -> Int64 {
        switch Int.random(in: 0..<4, using: &self) {
        case 0: range.lowerBound
        case 1: range.upperBound
        default: Int64.random(in: range, using: &self)
        }
    }

    /// A text without control characters, with everything that JSON escapes and characters of one to four bytes.
    mutating func text(_ length: ClosedRange<Int>) -> String {
        let scalars: [Unicode.Scalar] = [
            "a", "Z", "0", " ", "\"", "\\", "/", "é", "한", "😀", "\u{2028}", "{", "}", ",", ":", "'", "%", "\u{FFFD}",
        ]
        let count = Int.random(in: length.lowerBound...min(length.upperBound, length.lowerBound + 20), using: &self)
        var text = String.UnicodeScalarView()
        for _ in 0..<count { text.append(scalars[Int.random(in: 0..<scalars.count, using: &self)]) }
        return String(text)
    }

    mutating func key(_ prefix: String) -> String {
        let bytes = (0..<Int.random(in: 1...251, using: &self)).map { _ in UInt8.random(in: 0x20...0x7E, using: &self) }
        return prefix + String(decoding: bytes, as: UTF8.self)
    }

    /// A time that RFC 3339 has a form for.
    mutating func time() -> Timestamp {
        Timestamp(microsecondsSinceEpoch: number(-62_167_219_200_000_000...253_402_300_799_999_999))
    }

    mutating func maybe<Value>(_ value: (inout Random) -> Value) -> Value? { bool() ? value(&self) : nil }

    mutating func some<Value>(_ count: ClosedRange<Int>, _ value: (inout Random) -> Value) -> [Value] {
        var values: [Value] = []
        for _ in 0..<Int.random(in: count, using: &self) { values.append(value(&self)) }
        return values
    }
}

extension StockCommand {
    init(_ random: inout Random) {
        self.init(
            messageID: random.text(StockCommand.messageIDLength),
            productID: random.number(Values.idRange),
            time: random.time(),
            orders: random.some(1...5) { random in
                Order(
                    id: random.number(Values.idRange),
                    key: random.key(StockKey.decreasePrefix),
                    quantity: random.number(Values.quantityRange),
                    buyerID: random.maybe { $0.text(Values.userIDLength) },
                    traceparent: random.maybe { $0.text(1...55) }
                )
            }
        )
    }
}

extension StockResultMessage {
    init(_ random: inout Random) {
        self.init(
            messageID: random.maybe { $0.text(1...200) },
            commandID: random.maybe { $0.text(1...200) },
            productID: random.maybe { $0.number(Values.idRange) },
            time: random.maybe { $0.time() },
            results: random.some(1...5) { random in
                OrderStockResult(
                    orderID: random.number(Values.idRange),
                    run: random.number(Values.idRange),
                    outcome: random.bool() ? .committed : .refused,
                    reason: random.maybe { $0.text(1...64) },
                    remainingStock: random.maybe { $0.number(Values.remainingRange) }
                )
            }
        )
    }
}

extension OrderEvent {
    init(_ random: inout Random) {
        self.init(
            messageID: random.maybe { $0.text(1...20) },
            kind: Kind.allCases[Int.random(in: 0..<Kind.allCases.count, using: &random)],
            time: random.time(),
            orders: random.some(1...5) { random in
                Order(
                    id: random.number(Values.idRange),
                    productID: random.number(Values.idRange),
                    productCode: random.maybe { $0.text(1...64) },
                    buyerID: random.maybe { $0.text(Values.userIDLength) },
                    quantity: random.number(Values.quantityRange),
                    unitPrice: random.maybe { $0.number(Values.priceRange) },
                    status: OrderStatus.allCases[Int.random(in: 0..<OrderStatus.allCases.count, using: &random)],
                    failReason: random.maybe { $0.text(0...200) },
                    run: random.number(Values.idRange),
                    version: random.number(Values.idRange),
                    createdAt: random.time(),
                    updatedAt: random.time()
                )
            }
        )
    }
}

extension StockChange {
    init(_ random: inout Random) {
        let direction: Direction = random.bool() ? .out : .in
        self.init(
            direction: direction,
            productID: random.number(Values.idRange),
            orderID: random.number(Values.idRange),
            quantity: random.number(Values.quantityRange),
            key: random.key(direction == .out ? StockKey.decreasePrefix : StockKey.increasePrefix),
            attempt: random.number(Values.attemptRange),
            requestID: random.maybe { random in
                let letters = Array("ABCxyz019._:-")
                return String(
                    (0..<Int.random(in: 1...128, using: &random)).map { _ in letters[Int.random(in: 0..<letters.count, using: &random)] }
                )
            },
            since: random.maybe { $0.time() }
        )
    }
}
