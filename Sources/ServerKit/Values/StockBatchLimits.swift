/// What one call of `POST /internal/stock/batch` may hold: the product server refuses more, the order server cuts its batches to it.
public enum StockBatchLimits {
    /// Items in one call at most.
    public static let maximumItems = 512
    /// Bytes of a call's body at most.
    public static let maximumBytes = 256 * 1024
}
