import ProductServer

@main
struct ProductServerMain {
    static func main() async {
        await ProductServer.main()
    }
}
