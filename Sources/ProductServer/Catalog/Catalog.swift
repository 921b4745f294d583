import APIErrors
import CircuitBreaker
import StockContract
import StockGate

/// The catalogue's rules: what the engine must be told when a product changes.
struct Catalog: Sendable {
    let store: CatalogStore
    let engine: StockEngine
    let own: OwnProducts

    /// Makes a product, or finds the one that the same request made under its key before.
    func create(_ new: NewProduct, key: String?) async throws -> (product: Product, isReplay: Bool) {
        // A made-up code is taken only if somebody gave it to a product by hand. Further tries make up a random one.
        for attempt in 0..<4 {
            let code = attempt == 0 ? nil : "PRODUCT-R" + String(UInt64.random(in: .min ... .max), radix: 36).uppercased()
            switch try await store.create(new, key: key, otherwise: code) {
            case .created(let product):
                if product.stockStrategy == .redisFirst { await gate(product.id) }
                return (product, false)
            case .replayed(let product): return (product, true)
            case .keyReused: throw APIError(.keyReused)
            case .codeTaken where new.code == nil: continue
            case .codeTaken: throw APIError.invalid(field: "code", .codeTaken)
            case .idsUsedUp: throw APIError(.unavailable, message: .idsUsedUp)
            }
        }
        throw APIError.invalid(field: "code", .codeTaken)
    }

    func find(_ which: IDOrCode) async throws -> Product {
        if case .id(let id) = which { try own.check(id) }
        // A product that has moved to another cell may have left a row.
        guard let product = try await store.find(which), own.has(product.id) else { throw APIError(.productNotFound) }
        return product
    }

    func change(_ id: Int64, _ change: ProductChange) async throws -> Product {
        try own.check(id)
        guard let (product, engineMustKnow) = try await store.change(id, change) else { throw APIError(.productNotFound) }
        guard engineMustKnow else { return product }
        if product.stockStrategy == .redisFirst {
            await gate(id)
        } else {
            engine.setGated(ProductID(id), false)
        }
        return product
    }

    /// The ledger knows that the product is gated, or that it went on or off sale. Redis learns it before the answer, if it is in use; if not, the
    /// breaker's recovery installs it, and until then requests go direct.
    private func gate(_ id: Int64) async {
        let wasUsed = isRedisUsed(for: id)
        if wasUsed { _ = await engine.resync(ProductID(id)) }
        engine.setGated(ProductID(id), true)
        // A recovery that began in between has not seen the product.
        if !wasUsed, isRedisUsed(for: id) { _ = await engine.resync(ProductID(id)) }
    }

    /// Whether requests for the product go to Redis now, or will after a recovery that is running.
    private func isRedisUsed(for id: Int64) -> Bool {
        switch engine.breaker(of: ProductID(id))?.state {
        case .closed, .halfOpen, .disabled, .metricsOnly: true
        case .open, .forcedOpen, nil: false
        }
    }
}

extension ErrorMessage {
    static let codeTaken = ErrorMessage(en: "The code belongs to another product.", ko: "이미 사용 중인 상품 코드입니다.")
    static let idsUsedUp = ErrorMessage(
        en: "The ids for new products (PRODUCT_IDS) are used up.",
        ko: "새 상품에 쓸 수 있는 id(PRODUCT_IDS)를 모두 사용했습니다."
    )
    static let notGated = ErrorMessage(
        en: "The product is not sold through Redis (stockStrategy).",
        ko: "Redis로 판매되지 않는 상품입니다(stockStrategy)."
    )
    static let discontinued = ErrorMessage(en: "The product is discontinued.", ko: "판매가 종료된 상품입니다.")
    static let signedQuantity = ErrorMessage(
        en: "{field} must be a whole number other than 0, from -{maximum} to {maximum}.",
        ko: "{field}은(는) 0이 아닌 -{maximum}~{maximum} 범위의 정수여야 합니다."
    )
    static let stockRange = ErrorMessage(en: "The stock would leave its range.", ko: "재고가 허용 범위를 벗어납니다.")
}
