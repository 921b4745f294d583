public import APIErrors
public import Hummingbird
public import StrictJSON

/// Where a list is entered, and how much of it is shown: a page by its number, or the rows after a key.
public struct Listing: Sendable, Equatable {
    /// The page and its size. Where `after` is given, the page's number is ignored.
    public var paging: Paging
    /// The key after which to go on: the `next` of the page before.
    public var after: Int64?

    /// Makes a listing.
    public init(paging: Paging = Paging(), after: Int64? = nil) {
        self.paging = paging
        self.after = after
    }

    /// The parameters that a list takes besides its filters.
    public static let parameters = ["page", "size", "after"]
}

extension Request {
    /// `page` and `size`, or `after` and `size`.
    /// - Throws: `VALIDATION_ERROR`, also for `page` beside `after`
    public func listing(defaultSize: Int64 = 20) throws(APIError) -> Listing {
        let listing = Listing(paging: try paging(defaultSize: defaultSize), after: try queryInt("after", in: Values.idRange))
        if listing.after != nil, try query("page") != nil { throw .invalid(field: "page", .pageBesideAfter) }
        return listing
    }
}

/// What a list's answer has besides its rows.
public struct ListFacts: Sendable, Equatable {
    /// The key after which to go on; nil: there is nothing more.
    public var next: Int64?
    /// Rows of the whole list; nil where they were not counted.
    public var total: Int64?
    /// False: there are more rows than `total`.
    public var isTotalExact: Bool

    /// Makes the facts of one answer.
    public init(next: Int64?, total: Int64?, isTotalExact: Bool) {
        self.next = next
        self.total = total
        self.isTotalExact = isTotalExact
    }
}

extension Response {
    /// A list in the contract's shape: `content`, `size` and `next`; of a page by its number also `page`, `totalElements`, `totalPages` and `isTotalExact`.
    public static func list<Row>(_ rows: [Row], _ listing: Listing, _ facts: ListFacts, _ write: (Row, inout JSONWriter) -> Void)
        -> Response
    {
        .json { json in
            json.object { json in
                json.name("content")
                json.array(rows) { json, row in write(row, &json) }
                if let total = facts.total, listing.after == nil {
                    json.member("page", listing.paging.page)
                    json.member("size", listing.paging.size)
                    json.member("totalElements", total)
                    json.member("totalPages", listing.paging.totalPages(totalElements: total))
                    json.member("isTotalExact", facts.isTotalExact)
                } else {
                    json.member("size", listing.paging.size)
                }
                json.member("next", facts.next)
            }
        }
    }
}

extension APIError {
    /// A page so far behind that finding it would walk more rows than one request may.
    static func pageTooDeep(bound: Int64) -> APIError {
        .invalid(field: "page", .pageTooDeep, JSONMember("maximumRows", .int(bound)))
    }
}

extension ErrorMessage {
    static let pageBesideAfter = ErrorMessage(en: "page and after exclude each other.", ko: "page와 after는 함께 쓸 수 없습니다.")
    static let pageTooDeep = ErrorMessage(
        en: "page reaches only the first {maximumRows} rows. For later rows send the `next` of the page before as `after`.",
        ko: "page로는 처음 {maximumRows}행까지만 볼 수 있습니다. 그 뒤는 앞 페이지의 next 값을 after로 보내어 읽습니다."
    )
}
