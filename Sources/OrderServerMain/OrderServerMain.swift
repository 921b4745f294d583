import OrderServer

@main
struct OrderServerMain {
    static func main() async {
        await OrderServer.main()
    }
}
