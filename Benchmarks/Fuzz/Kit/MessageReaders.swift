import APIErrors
import SeededRandom
import StockContract
import StrictJSON

#if DEBUG
    @testable import MessageBroker
    @testable import OrderServer
    @testable import ProductServer
    @testable import ServerKit
    import StockGate
    import StockGateProof

    extension Delivery {
        /// A delivery with odd headers, chosen by the bytes.
        fileprivate init(odd bytes: [UInt8]) {
            var random = SplitMix64(seed: bytes.seed)
            let numbers: [HeaderValue] = [
                .integer(.max), .integer(.min), .integer(0), .integer(3), .string("9"), .list([]), .table([:]), .string("\u{0}"),
            ]
            var headers: [String: HeaderValue] = [:]
            for name in [
                "x-delivery-count", "attempt", "x-death", "traceparent", "x-stream-offset", "reason", "x-first-death-queue", "content-type",
            ]
            where Bool.random(using: &random) {
                headers[name] = Mutation.pick(numbers, &random)
            }
            let texts: [String?] = [nil, "", "1", String(repeating: "x", count: 255), String(repeating: "\u{1F600}", count: 60), "a\u{0}b"]
            self.init(
                body: bytes,
                messageID: Mutation.pick(texts, &random),
                correlationID: Mutation.pick(texts, &random),
                type: Mutation.pick(texts, &random),
                contentType: Mutation.pick(texts, &random),
                timestamp: Mutation.pick([nil, 0, .max, 1_700_000_000], &random),
                headers: headers,
                exchange: "e",
                routingKey: "k",
                isRedelivered: Bool.random(using: &random),
                tag: DeliveryTag(generation: 1, number: 1)
            )
        }
    }

    /// Commands as the product server reads them, and the results that it makes of them.
    struct CommandFuzz: FuzzReader {
        let name = "command"
        let what = "messages of stock.decrease, the results and dead letters made of them"
        let examples: [[UInt8]] = [
            #"{"version":1,"type":"stock.decrease","messageId":"1024","productId":1,"time":"2026-01-31T09:30:00.121908Z","orders":[{"orderId":7,"key":"DEC-7","quantity":3,"buyerId":"u-001","traceparent":null},{"orderId":8,"key":"DEC-8.2","quantity":1,"buyerId":null}]}"#,
            #"{"version":1,"type":"stock.decrease","messageId":"1","productId":9223372036854775807,"time":"9999-12-31T23:59:59Z","orders":[{"orderId":9223372036854775807,"key":"DEC-9223372036854775807","quantity":1000000000}]}"#,
        ].map { Array($0.utf8) }

        func violation(_ bytes: [UInt8]) -> String? {
            let delivery = Delivery(odd: bytes)
            let command = IncomingCommand(delivery, isCopy: { $0.identity.utf8.count.isMultiple(of: 2) })
            let orders: [Int64]
            let verdicts: [CommandLife.Verdict?]
            switch command.content {
            case .command(let command):
                guard (1...StockCommand.maximumOrders).contains(command.orders.count) else { return "\(command.orders.count) orders" }
                orders = command.orders.map(\.id)
                let remaining: [Int64] = [0, .max, 5]
                verdicts = orders.indices.map {
                    $0.isMultiple(of: 2)
                        ? .committed(remaining: remaining[$0 % 3]) : .refused(.insufficientStock, remaining: remaining[$0 % 3])
                }
                _ = Timestamp.now.microseconds(since: command.time)
                guard Timestamp(rfc3339: command.time.description) == command.time else {
                    return "its time is written as another: \(command.time)"
                }
            case .poison(let poison):
                orders = poison.orders.map(\.id)
                verdicts = []
            }
            let messages = ResultMessages(command: command, verdicts: verdicts)
            let letter = messages.message(.deadLetter, at: .now)
            guard letter.body == bytes else { return "the dead letter is not the message" }
            let result = messages.message(.result, at: Timestamp(microsecondsSinceEpoch: 1_769_851_800_000_000))
            guard (result.messageID ?? "").utf8.count <= 255 else { return "the result's id is longer than a name on the wire" }
            if orders.isEmpty { return nil }
            // What the order server makes of it: an order that is named must get its answer.
            do throws(StockResultMessage.Poison) {
                let told = try StockResultMessage(result.body).results.map(\.orderID)
                return told == orders ? nil : "orders \(orders), told \(told)"
            } catch {
                // A stranger's key, which no order has, in a command that is well-formed otherwise.
                if case .command(let command) = command.content,
                    command.orders.contains(where: { StockKey.run(of: $0.key, order: $0.id) == nil })
                {
                    return nil
                }
                return "the order server cannot read the result: \(error), \(String(decoding: result.body, as: UTF8.self))"
            }
        }
    }

    /// Results as the order server reads them.
    struct ResultFuzz: FuzzReader {
        let name = "result"
        let what = "messages of order.results, and what they mean for orders in any state"
        let examples: [[UInt8]] = [
            #"{"version":1,"type":"stock.result","messageId":"R-1024","commandId":"1024","productId":1,"time":"2026-01-31T09:30:00.127001Z","results":[{"orderId":7,"key":"DEC-7","outcome":"COMMITTED","reason":null,"remainingStock":97},{"orderId":8,"key":"DEC-8.2","outcome":"REFUSED","reason":"INSUFFICIENT_STOCK","remainingStock":0}]}"#,
            #"{"version":1,"type":"stock.result","messageId":"R-unknown","commandId":null,"productId":null,"time":"2026-01-31T09:30:00Z","results":[{"orderId":1,"key":"DEC-1","outcome":"REFUSED","reason":"VALIDATION_ERROR","remainingStock":null}]}"#,
        ].map { Array($0.utf8) }

        func violation(_ bytes: [UInt8]) -> String? {
            _ = Delivery(odd: bytes).isSuspect
            let message: StockResultMessage
            do throws(StockResultMessage.Poison) {
                message = try StockResultMessage(bytes)
            } catch {
                return error.code.isEmpty ? "poison without a code" : nil
            }
            guard !message.results.isEmpty else { return "no results" }
            var random = SplitMix64(seed: bytes.seed)
            let memory = SoldOutProducts(time: .seconds(1))
            if let time = message.time { _ = memory.isFresh(time) }
            for result in message.results {
                guard result.orderID >= 1, result.run >= 1, (result.remainingStock ?? 0) >= 0 else { return "\(result)" }
                if let reason = result.reason, reason.unicodeScalars.contains(where: { $0.value < 32 }) {
                    return "a control character in \(reason.debugDescription)"
                }
                var order = Order.fuzzed(&random)
                order.id = result.orderID
                order.run = Mutation.pick([1, result.run, .max], &random)
                if case .lateSuccess(let late) = ResultJudgement(result, order) {
                    guard late.status == .failed, result.outcome == .committed, late.increaseKey.hasPrefix("INC-") else { return "\(late)" }
                }
                guard ResultJudgement(result, nil) == .unexpected else { return "a result for nobody" }
                if let left = result.remainingStock, left < .max, let product = message.productID {
                    memory.sawRefusal(product: product, quantity: left + 1)
                }
            }
            return nil
        }
    }

    /// Events as a follower reads them, and its position.
    struct EventFuzz: FuzzReader {
        let name = "event"
        let what = "messages of order.events.stream, and the offsets they come with"
        let examples: [[UInt8]] = [
            #"{"version":1,"type":"order.confirmed","messageId":"1025","time":"2026-01-31T09:30:00.130422Z","orders":[{"id":7,"productId":1,"buyerId":"u-001","quantity":3,"status":"CONFIRMED","failReason":null,"createdAt":"2026-01-31T09:30:00.121908Z","updatedAt":"2026-01-31T09:30:00.129900Z","productCode":null,"unitPrice":null,"run":1,"version":2}]}"#
        ].map { Array($0.utf8) }

        func violation(_ bytes: [UInt8]) -> String? {
            _ = Delivery(odd: bytes).streamOffset
            var random = SplitMix64(seed: bytes.seed)
            let ends: [UInt64] = [0, 1, 2, 7, .max - 1, .max]
            var position = FollowPosition(
                last: Mutation.pick([nil, 0, 5, .max - 1, .max], &random),
                missedAtBeginning: Mutation.pick(ends, &random),
                missedLater: Mutation.pick(ends, &random),
                gaps: Mutation.pick(ends, &random)
            )
            for _ in 0..<3 {
                let before = position.last
                let offsets = (0..<Int.random(in: 0...4, using: &random)).map { _ in Mutation.pick(ends, &random) }.sorted()
                if position.received(offsets) == .apply, let before, (position.last ?? 0) < before {
                    return "the position went back: \(before), \(position)"
                }
                _ = (position.missed, position.start)
            }
            guard let event = try? OrderEvent(bytes) else { return nil }
            for order in event.orders.map(VersionedOrder.init(event:)) {
                guard order.version >= 1, Values.idRange.contains(order.order.id) else { return "\(order)" }
                if let what = order.order.writtenAgain() { return what }
            }
            return nil
        }
    }

    extension Order {
        static func fuzzed(_ random: inout SplitMix64) -> Order {
            let numbers: [Int64] = [1, 7, .max]
            return Order(
                id: Mutation.pick(numbers, &random),
                productID: Mutation.pick(numbers, &random),
                productCode: nil,
                buyerID: nil,
                quantity: 1,
                unitPrice: nil,
                status: Mutation.pick(Array(OrderStatus.allCases), &random),
                failReason: nil,
                idempotencyKey: nil,
                run: 1,
                cancelRequestedAt: nil,
                cancelKey: nil,
                createdAt: Timestamp(microsecondsSinceEpoch: Mutation.pick([.min, 0, .max], &random)),
                updatedAt: Timestamp(microsecondsSinceEpoch: Mutation.pick([.min, 0, .max], &random))
            )
        }

        /// What is wrong with the order's JSON; nil if it can be read again.
        func writtenAgain() -> String? {
            var json = JSONWriter()
            json.object { writeMembers(to: &$0) }
            return (try? JSONDocument(json.bytes)) == nil ? "an order is written as no JSON: \(json.string)" : nil
        }
    }
#endif
