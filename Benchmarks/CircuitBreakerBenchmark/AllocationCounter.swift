import Glibc
import Synchronization

// Counts calls of `malloc` without a library of its own: in every loaded ELF object (Swift's runtime among them) the slot through which it calls
// `malloc` is pointed at a function that counts and goes on to the C library's. That is what `swift_slowAlloc` calls for every class instance,
// array, closure context and task. Layouts: System V ABI, ELF-64, "Program Loading and Dynamic Linking"; the same on x86-64 and arm64.
//
// Bounds: the objects in /proc/self/maps, and their relocations. Before any other thread runs; never undone, for the process ends soon.

private let isCounting = Atomic<Bool>(false)
private let count = Atomic<Int>(0)

private typealias Allocate = @convention(c) (Int) -> UnsafeMutableRawPointer?

private let countingMalloc: Allocate = { size in
    if isCounting.load(ordering: .relaxed) { count.add(1, ordering: .relaxed) }
    return malloc(size)
}

/// Makes ``allocations(during:)`` count. Returns the number of slots that were pointed at the counter, 0 where this is no such system.
func installAllocationCounter() -> Int {
    // Touched here so that nothing is set up lazily, and allocates, inside the counter.
    let replacement = countingMalloc
    _ = allocations {}
    guard let executable = firstMapping(of: "/proc/self/exe") else { return 0 }
    // This executable's own slot stays as it is: the counter itself calls through it.
    return loadedObjects().filter { $0 != executable }.reduce(0) { $0 + redirectMalloc(of: $1, to: replacement) }
}

/// Counts the calls of `malloc` from every library of the process while `body` runs.
func allocations(during body: () -> Void) -> Int {
    count.store(0, ordering: .relaxed)
    isCounting.store(true, ordering: .relaxed)
    body()
    isCounting.store(false, ordering: .relaxed)
    return count.load(ordering: .relaxed)
}

/// Where each file that is mapped from its beginning is mapped, and its path.
private func mappings() -> [(address: UInt, path: String)] {
    guard let file = fopen("/proc/self/maps", "r") else { return [] }
    defer { fclose(file) }
    var found: [(address: UInt, path: String)] = []
    var line = [CChar](repeating: 0, count: 4_096)
    while fgets(&line, Int32(line.count), file) != nil {
        let fields = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            .split(whereSeparator: { $0 == " " || $0 == "\n" })
        guard fields.count >= 6, fields[2].allSatisfy({ $0 == "0" }), fields[5].hasPrefix("/") else { continue }
        guard let address = UInt(fields[0].prefix { $0 != "-" }, radix: 16) else { continue }
        found.append((address, String(fields[5])))
    }
    return found
}

private func firstMapping(of link: String) -> UInt? {
    guard let resolved = realpath(link, nil) else { return nil }
    defer { free(resolved) }
    let path = String(cString: resolved)
    return mappings().first { $0.path == path }?.address
}

private func loadedObjects() -> [UInt] {
    mappings().map(\.address).filter { UnsafeRawPointer(bitPattern: $0)?.load(as: UInt32.self) == 0x464C_457F }
}

private func redirectMalloc(of base: UInt, to replacement: Allocate) -> Int {
    func read<Value>(_ address: UInt, as type: Value.Type) -> Value? { UnsafeRawPointer(bitPattern: address)?.loadUnaligned(as: type) }
    guard
        let headers = read(base + 32, as: UInt.self),
        let headerSize = read(base + 54, as: UInt16.self),
        let headerCount = read(base + 56, as: UInt16.self)
    else { return 0 }
    var dynamic: UInt?
    for index in 0..<UInt(headerCount) {
        let header = base + headers + index * UInt(headerSize)
        if read(header, as: UInt32.self) == 2, let offset = read(header + 16, as: UInt.self) { dynamic = base + offset }
    }
    guard var entry = dynamic else { return 0 }
    var table: [UInt: UInt] = [:]
    while let tag = read(entry, as: UInt.self), tag != 0, let value = read(entry + 8, as: UInt.self) {
        table[tag] = value
        entry += 16
    }
    // The loader has made most of these addresses absolute in place, but not all of them.
    func address(_ tag: UInt) -> UInt? { table[tag].map { $0 < base ? $0 + base : $0 } }
    guard let strings = address(5), let symbols = address(6) else { return 0 }
    var redirected = 0
    for (start, size) in [(address(23), table[2]), (address(7), table[8])] {
        guard let start, let size else { continue }
        for relocation in stride(from: start, to: start + size, by: 24) {
            guard let offset = read(relocation, as: UInt.self), let info = read(relocation + 8, as: UInt.self), info >> 32 != 0 else {
                continue
            }
            guard let name = read(symbols + (info >> 32) * 24, as: UInt32.self),
                let text = UnsafePointer<CChar>(bitPattern: strings + UInt(name)),
                strcmp(text, "malloc") == 0
            else { continue }
            let slot = base + offset
            let page = UInt(sysconf(Int32(_SC_PAGESIZE)))
            guard let pointer = UnsafeMutableRawPointer(bitPattern: slot),
                let start = UnsafeMutableRawPointer(bitPattern: slot & ~(page - 1)),
                mprotect(start, Int(page), PROT_READ | PROT_WRITE) == 0
            else { continue }
            pointer.storeBytes(of: replacement, as: Allocate.self)
            redirected += 1
        }
    }
    return redirected
}
