import Testing

/// Real servers under real load, taken away and given back; after each fault the books of both databases and Redis must agree.
///
/// One after another: each test needs the machine for itself.
@Suite(.serialized)
enum Faults {}
