import HotPath
import HTTPTypes

extension RequestHead {
    /// The head for the router. Fields about the connection alone are left out, because the front door has dealt with them.
    var httpRequest: HTTPRequest {
        var fields = HTTPFields()
        eachField { name, value in
            guard let name = HTTPField.Name(name) else { return }
            switch name {
            case .connection, .transferEncoding, .upgrade, .expect, .te, .trailer, .host: return
            default:
                switch name.canonicalName {
                case "proxy-connection", "keep-alive", "http2-settings", "x-request-id": return
                default: fields.append(HTTPField(name: name, value: value))
                }
            }
        }
        fields.append(HTTPField(name: .requestID, value: id.description))
        // The reader accepts only a token as the method, so GET never stands in for another.
        let method = HTTPRequest.Method(rawValue: methodText) ?? .get
        return HTTPRequest(method: method, scheme: "http", authority: self.host, path: routerPath, headerFields: fields)
    }
}

extension HTTPField.Name {
    fileprivate static let host = HTTPField.Name("Host") ?? .connection
}
