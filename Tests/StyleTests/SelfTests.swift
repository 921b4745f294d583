import Foundation
import Testing

/// `self.` stands where the compiler asks for it, or where a local name hides the member, and nowhere else.
@Suite struct SelfTests {
    /// The repository's Swift files, with their path in it.
    private static func files() throws -> [(path: String, source: String)] {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        var files: [(String, String)] = []
        for folder in ["Sources", "Tests", "Benchmarks", "Tools"] {
            let found = try #require(
                FileManager.default.enumerator(at: root.appendingPathComponent(folder), includingPropertiesForKeys: nil)
            )
            for case let file as URL in found where file.pathExtension == "swift" {
                files.append((String(file.path.dropFirst(root.path.count + 1)), try String(contentsOf: file, encoding: .utf8)))
            }
        }
        return files
    }

    @Test func selfStandsOnlyWhereItMust() throws {
        let files = try Self.files()
        #expect(files.count > 700, "so few files mean that the wrong folder was read: \(files.count)")
        var classes: Set<String> = []
        for file in files { classes.formUnion(SelfUses.classes(in: file.source)) }
        for file in files {
            for finding in SelfUses.unneeded(in: file.source, classes: classes) { Issue.record("\(file.path), \(finding)") }
        }
    }

    @Test(arguments: [
        ("struct A { func f() { self.g() } }", ["g"]),
        ("class A { func f() { if a { self.g() } else { self.h() } } }", ["g", "h"]),
        ("class A { func f() { for b in self.c where b { guard self.d else { return } } } }", ["c", "d"]),
        ("class A { var b: Int { self.c } }", ["c"]),
        ("class A { var b: Int { get { self.c } set { self.d = newValue } } }", ["c", "d"]),
        ("class A { init(b: Int) { self.c = b } }", ["c"]),
        ("class A { func f() { let x = lock.withLock { $0 + self.g() } } }", ["g"]),
        ("struct A { func f() { later { self.g() } } }", ["g"]),
        ("extension B { func f() { later { self.g() } } }", ["g"]),
        (#"struct A { var b: String { "\(self.c) and \(text ?? "\(self.d)")" } }"#, ["c", "d"]),
        ("class A {\n    func f(\n        b: Int,\n        c: (Int) -> Void = { _ in }\n    ) {\n        self.d = b\n    }\n}", ["d"]),
    ])
    func isFound(source: String, names: [String]) {
        #expect(SelfUses.unneeded(in: source, classes: ["K"]).map(\.name) == names)
    }

    @Test(arguments: [
        "class A { init(b: Int) { self.b = b } }",
        "class A { func f() { later { self.g() } } }",
        "class A { func f() { if a { later(1) { self.g() } } } }",
        "extension K { func f() { later { self.g() } } }",
        "class A { func f() { b.wait(for: 1) { self.g() } } }",
        "class A { func f() { router.get(1) { self.g() } } }",
        "class A { func f() { a { if b { c } }.d().later { self.g() } } }",
        "struct A { mutating func f() { self.init(); self.error = 1 } }",
        "struct A { func f() { let g = self.g } }",
        "struct A { func f() { if let (g, h) = x { self.g() } } }",
        "struct A { func f() { for (g, h) in x { self.h() } } }",
        "struct A { func f() { switch x { case .y(let g, _): self.g() } } }",
        "struct A { func f() { x.map { g, h in self.h() } } }",
        "struct A { func f() { func g() {}; self.g() } }",
        "struct A { // self.g()\n let b = \"self.g()\" }",
        "struct A { func f() { x = \\.self.g } }",
    ])
    func isLeft(source: String) {
        #expect(SelfUses.unneeded(in: source, classes: ["K"]) == [])
    }
}
