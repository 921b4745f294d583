/// `application/json` or `application/…+json`, in UTF-8 if it says a charset.
public func isJSONMediaType(_ contentType: String) -> Bool {
    // The one spelling that nearly every client sends is compared first.
    if contentType == "application/json" { return true }
    let parts = contentType.split(separator: ";", omittingEmptySubsequences: false)
    let type = (parts.first ?? "").trimmed.lowercased()
    guard type == "application/json" || (type.hasPrefix("application/") && type.hasSuffix("+json")) else { return false }
    for part in parts.dropFirst() {
        let parameter = part.trimmed.lowercased()
        if parameter.hasPrefix("charset="), parameter != "charset=utf-8", parameter != "charset=\"utf-8\"" { return false }
    }
    return true
}
