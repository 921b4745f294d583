public import Foundation
import Histogram

/// The sale over time and its latencies, for other tools.
extension SaleReport {
    /// One JSON object a line, one line a point; each with its histogram as `[microseconds, count]` pairs, which add up to the whole.
    public func ndjson() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        var data = Data()
        for point in result.points {
            data += try encoder.encode(json(point, withHistogram: true))
            data.append(0x0A)
        }
        return data
    }

    func json(_ point: SalePoint, withHistogram: Bool) -> ReportValue {
        let latency = zip(["p50", "p90", "p99", "p999", "max"], point.latency).map { ($0, ReportValue.double($1)) }
        var fields: [String: ReportValue] = [
            "atSeconds": .double(point.at), "seconds": .double(point.seconds), "sent": .int(point.sent), "retries": .int(point.retries),
            "due": .int(point.due), "shed": .int(point.shed), "stale": .int(point.stale), "inFlight": .int(point.inFlight),
            promise: .int(point.outcomes[0]), "soldOut": .int(point.outcomes[1]), "failed": .int(point.outcomes[2]),
            "errors": .int(point.outcomes[3]),
            "latencyMs": .object(Dictionary(uniqueKeysWithValues: latency)), "redisStock": .optional(point.redisStock),
            "databaseStock": .optional(point.databaseStock), "breaker": .optional(point.breaker), "cpuSeconds": .double(point.cpuSeconds),
        ]
        if withHistogram {
            fields["histogram"] = .array(point.histogram.map { .array([.int(Int64($0.microseconds)), .int(Int64($0.count))]) })
        }
        return .object(fields)
    }

    /// The points as a table for a spreadsheet (RFC 4180), one heading line.
    public func csv() -> Data {
        var text =
            "at_s,seconds,sent,retries,due,shed,stale,in_flight,\(promise),sold_out,failed,errors,p50_ms,p90_ms,p99_ms,p999_ms,max_ms,"
        text += "redis_stock,database_stock,breaker\r\n"
        for point in result.points {
            let counts = [point.sent, point.retries, point.due, point.shed, point.stale, point.inFlight] + point.outcomes
            let cells =
                [point.at.digits(3), point.seconds.digits(3)] + counts.map(String.init) + point.latency.map { $0.digits(3) } + [
                    point.redisStock.map(String.init) ?? "", point.databaseStock.map(String.init) ?? "", point.breaker ?? "",
                ]
            text += cells.joined(separator: ",") + "\r\n"
        }
        return Data(text.utf8)
    }

    /// The latencies of all orders as HdrHistogram's percentile distribution, in milliseconds: what its plotters read.
    public func hgrm() -> Data {
        var text = ""
        result.load.latencies.histogram.outputPercentileDistribution(to: &text, outputValueUnitScalingRatio: 1_000)
        return Data(text.utf8)
    }
}
