/// A small world for the explorer: one product, some actors who may pause between any two steps, and budgets of faults.
///
/// Actors have these names:
///
///     a b      buyers of one unit; A B buyers of two. A repeated name is the same key sent twice at once
///     a'       an attempt at key a that is known not to be the first
///     a=2      key a with a quantity of two;  a@ key a for another order
///     ?a       settles an order whose decrement is unknown: looks key a up
///     -a       the compensation of key a; twice for a redelivery.  -a=2 names another quantity than was taken, -a@ another order
///     /a       reads what became of key a, and tells it
///     +        the return of a unit that was sold before
///     resync   a resync at any moment: sweep, audit, start, half-open
///     sweep    a resync as soon as a reservation is pending, and only then
///     healer   runs the resyncs that others ask for, and only those
///     ~a       a buyer of another server, whose breaker is closed throughout
///     recovery this server's breaker opens; its recovery finds the product's row locked, passes without it, and asks for it again
///     mend     what Redis holds for the product cannot be used: its keys are made anew, then it is resynced
///     db-only  a decrement by hand;  restock an increase by hand
///     foreign  a resync by another ledger that is on the same Redis: installs a stock of 50
///     delete   the product is discontinued;  relist it is put on sale again
///     #a       an order that the order server settles under the key a. A second #a is made after the order database was restored to before the first, and
///              has its id
///     =a       an order that is made while the sequence of ids is behind: it is given the id of order a, whose row is still there
///     &a       another server goes on with order a while it is undecided
///     -#a      order a is cancelled once it is confirmed
public struct World: Hashable, Sendable, CustomStringConvertible {
    /// Who is there.
    public var actors: [String]
    /// Units at the beginning.
    public var stock: Int64
    /// How often Redis is emptied (`FLUSHALL`: the server's identity stays).
    public var flushes = 0
    /// How often Redis restarts from a copy that was taken at any earlier moment.
    public var copies = 0
    /// How often a product's counter is lost while its other keys stay (evicted, deleted by hand).
    public var losses = 0
    /// How often the product's slot moves to another node of Redis Cluster, with its keys or without them. What was sent to the old node before may still be
    /// answered there.
    public var moves = 0
    /// How often PostgreSQL is restored from a copy that was taken at any earlier moment.
    public var restores = 0
    /// How often PostgreSQL's primary is replaced by its standby, which has everything or lacks the last commits.
    public var failovers = 0
    /// How often the wait of a commit for the synchronous standby is cancelled, so that it can be seen and may still be lost.
    public var cancels = 0
    /// Whether the standby is a synchronous one: a commit is told only when the standby has it.
    public var isSynchronous = false
    /// How often an answer does not reach its order.
    public var unheard = 0
    /// Orders of long ago that the order database has lost but the ledger has not: `a` was sold, `-a` was sold and given back, `!a` was closed without ever
    /// being sold.
    public var earlier: [String] = []
    /// How often a connection is lost during a commit whose statement is still alive.
    public var zombies = 0
    /// How often a process dies between two steps.
    public var deaths = 0
    /// How often a commit is known not to have run.
    public var refusals = 0
    /// How often a settle or a release is sent again after it ran.
    public var resends = 0
    /// How many resyncs the healer may need at most.
    public var resyncs = 99
    /// Whether the times at which orders were made are unknown: the caller keeps them, or they are from another clock than the ledger's.
    public var timeless = false
    /// Whether two requests may go in one statement.
    public var batch = false
    /// Whether messages are never lost, and no request goes directly to the ledger.
    public var calm = false

    /// A world without faults.
    public init(
        _ actors: String,
        _ stock: Int64,
        flushes: Int = 0,
        copies: Int = 0,
        losses: Int = 0,
        moves: Int = 0,
        restores: Int = 0,
        failovers: Int = 0,
        cancels: Int = 0,
        zombies: Int = 0,
        deaths: Int = 0,
        refusals: Int = 0,
        resends: Int = 0,
        unheard: Int = 0,
        resyncs: Int = 99,
        batch: Bool = false,
        calm: Bool = false,
        timeless: Bool = false,
        synchronous: Bool = false,
        earlier: String = ""
    ) {
        self.actors = actors.split(separator: " ").map(String.init)
        self.stock = stock
        self.flushes = flushes
        self.copies = copies
        self.losses = losses
        self.moves = moves
        self.restores = restores
        self.failovers = failovers
        self.cancels = cancels
        isSynchronous = synchronous
        self.unheard = unheard
        self.earlier = earlier.split(separator: " ").map(String.init)
        self.zombies = zombies
        self.deaths = deaths
        self.refusals = refusals
        self.resends = resends
        self.resyncs = resyncs
        self.batch = batch
        self.calm = calm
        self.timeless = timeless
    }

    /// The world in one line.
    public var description: String {
        var text = actors.joined(separator: " ") + " stock=\(stock)"
        for (name, count) in [
            ("flushes", flushes), ("copies", copies), ("losses", losses), ("moves", moves), ("restores", restores),
            ("failovers", failovers), ("cancels", cancels), ("zombies", zombies), ("deaths", deaths),
            ("refusals", refusals), ("resends", resends), ("unheard", unheard),
        ]
        where count > 0 { text += " \(name)=\(count)" }
        if !earlier.isEmpty { text += " earlier=\(earlier.joined(separator: ","))" }
        if resyncs < 99 { text += " resyncs=\(resyncs)" }
        if batch { text += " batch" }
        if isSynchronous { text += " synchronous" }
        if calm { text += " calm" }
        if timeless { text += " timeless" }
        return text
    }

    /// The first worlds of this proof, which cover the protocol's main rules. They are small.
    public static let model: [World] = [
        World("a b resync", 1), World("a a resync", 2), World("a b +", 1),
        World("A b resync", 2), World("a B +", 1), World("a b resync resync", 1),
        World("a a' resync", 1), World("a a' b", 1), World("a a' b", 1, deaths: 1), World("a a'", 1, flushes: 1, deaths: 1),
        World("a a' resync", 1, zombies: 1), World("a + b", 1, zombies: 1), World("a resync", 1, zombies: 2, deaths: 1),
        World("a + resync", 0, zombies: 1), World("+ resync", 1, copies: 1, zombies: 1),
        World("a resync", 1, copies: 1), World("a a' resync", 2, copies: 1), World("a b", 1, copies: 1, deaths: 1),
        World("a + resync", 1, flushes: 1), World("a resync resync", 1, flushes: 2),
        World("a -a resync", 1), World("a -a -a", 1), World("a -a b", 1), World("a a' -a", 1),
        World("a -a", 1, flushes: 1, zombies: 1), World("A -A b", 2),
        World("a b resync", 1, batch: true), World("a a b", 2, batch: true), World("a a' resync", 1, batch: true),
        World("a b healer", 1, resyncs: 2), World("a b + healer", 0), World("a b healer", 2, flushes: 1),
        World("a db-only resync", 2), World("a delete resync", 1), World("a -a delete healer", 1),
        World("a healer", 1, zombies: 1), World("a a' healer", 1, zombies: 1),
        World("a ?a resync", 1, zombies: 1),
        World("a a b + resync", 1, calm: true), World("a a' b + resync", 1, calm: true),
        World("a b c d resync healer", 4, resyncs: 1, calm: true),
    ]

    /// Larger worlds for the same rules, with millions of states.
    public static let deep: [World] = [
        World("a b + resync", 1, copies: 1), World("a a' + resync", 1, copies: 1),
        World("a a' b resync", 1, zombies: 1, batch: true), World("a b c resync", 2, batch: true),
        World("a b -a resync", 1, zombies: 1), World("a a' -a resync", 1, copies: 1),
        World("a -a a' +", 1, zombies: 1), World("a a b + resync", 1),
        World("a b delete + resync", 1), World("a b + healer", 1, flushes: 1),
    ]

    /// Worlds for the rules that the protocol got later.
    public static let own: [World] = [
        // A commit that is known not to have run gives its reservation back, unless a twin joined it.
        World("a a b", 1, refusals: 1), World("a a' resync", 1, refusals: 1), World("a a a", 2, refusals: 2),
        World("a b healer", 1, refusals: 1), World("a a'", 1, zombies: 1, refusals: 1),
        // A release or a settle whose answer was lost is sent again, perhaps after the key was reserved again.
        World("a a' resync", 1, refusals: 1, resends: 1), World("a a -a", 1, resends: 1), World("a a' b", 1, refusals: 1, resends: 1),
        // A reply of *already done* is followed by a lookup. The ledger may change between the two, and a copy of Redis may remember something else.
        World("a a' a'", 1, deaths: 1), World("a a' -a", 1, copies: 1),
        // A sweep takes a slow request for a dead one.
        World("a b sweep", 1), World("a a' sweep", 1), World("a -a sweep", 1, deaths: 1), World("a a sweep", 1, refusals: 1),
        // One key with two payloads.
        World("a a=2 b", 2), World("a a=2 resync", 2), World("a a@ resync", 1), World("a a=2 -a", 2), World("A A=1 b", 2, deaths: 1),
        // An increase that names another quantity or order than the decrease is refused, and does not block the correct one.
        World("A -A=1 b", 2), World("A -A=1 -A b", 2), World("a -a@ -a resync", 1), World("a a' -a -a@", 1),
        World("a -a -a@", 1, zombies: 1),
        World("a -a@ healer", 1, zombies: 1), World("a b' -b@ -b", 1), World("a@ a -a -a@", 1), World("A -A=1", 2, flushes: 1, zombies: 1),
        World("a -a@", 1, deaths: 1, batch: true),
        // The product goes off sale and on sale, and units are added by hand.
        World("a a' delete relist", 1), World("a' delete relist healer", 1), World("a b restock healer", 0),
        World("a b restock resync", 1, batch: true), World("a db-only restock healer", 1),
        // A recovery passes without the product, which is then sold directly. No server sells it through what Redis holds from before, and it returns to Redis
        // later.
        World("a ~b recovery healer", 1), World("a ~a' recovery healer", 1), World("~a ~b recovery healer", 2),
        World("a ~b recovery healer", 1, zombies: 1), World("~a + recovery healer", 0), World("a ~b recovery healer", 2, flushes: 1),
        World("a -a recovery healer", 1), World("a ~b recovery", 1, deaths: 1), World("~a recovery resync resync", 1),
        World("~a delete recovery healer", 1),
        // The product's keys cannot be used, and are removed.
        World("a b mend", 1), World("a a' mend resync", 1), World("a b mend healer", 2), World("a -a mend", 1, zombies: 1),
        World("a mend recovery healer", 1),
        // The healer, together with a buyer that dies, and with a flush and a repeat.
        World("a a' healer", 1, flushes: 1), World("a -a healer", 1, zombies: 1), World("a b resync healer", 1),
        // Only the counter is lost. Then the product is not loaded, nobody is told that it is discontinued, and only an install makes a counter.
        World("a b healer", 2, losses: 1), World("a b resync", 2, losses: 1, refusals: 1), World("a a' resync", 1, losses: 1),
        World("a + healer", 1, losses: 1), World("a -a resync", 2, losses: 2), World("a b delete healer", 2, losses: 1),
        World("a delete relist healer", 1, losses: 1),
        // The ledger is restored from a copy and is behind Redis. Answers stay true unless the restore lost their rows, and Redis is installed anew.
        World("a b resync", 1, restores: 1), World("a a' resync", 1, restores: 1), World("a b healer", 2, restores: 1),
        World("a + healer", 1, restores: 1), World("a -a", 1, restores: 1), World("a resync resync", 1, restores: 1),
        World("a db-only healer", 2, restores: 1), World("a b", 1, flushes: 1, restores: 1),
        // A failover loses the last commits, because the standby that takes over lacks them. For a moment there are two primaries. The server's sessions find the new
        // one by its timeline, and Redis is exact again without an audit, also where no fence is behind.
        World("a b healer", 2, failovers: 1), World("a a' healer", 1, failovers: 1), World("a + healer", 1, failovers: 1),
        World("a -a healer", 1, failovers: 1), World("a db-only healer", 2, failovers: 1), World("a healer", 1, failovers: 1, zombies: 1),
        // Redis is ahead of the ledger by a fence that nobody of this server has raised.
        World("a resync healer", 1, failovers: 1), World("a resync resync healer", 2, failovers: 1),
        // With a synchronous standby every answer stays true after a failover, even if the old primary had shown a commit that the standby lacks.
        World("a b healer", 2, failovers: 1, cancels: 1, synchronous: true),
        World("a a' healer", 1, failovers: 1, cancels: 1, synchronous: true),
        World("a /a healer", 1, failovers: 1, cancels: 1, synchronous: true),
        World("a a' /a", 1, failovers: 1, cancels: 2, synchronous: true),
        // A buyer who would have committed again is gone: what somebody else read of his row is all that was told.
        World("a /a", 1, failovers: 1, cancels: 1, deaths: 1, synchronous: true),
        World("a b' healer", 1, failovers: 1, cancels: 1, deaths: 1, synchronous: true),
        World("a healer", 1, failovers: 1, cancels: 1, zombies: 1, synchronous: true),
        // The product's slot moves to another node while requests are under way. The product is sold directly until it is installed there.
        World("a b healer", 2, moves: 1), World("a a' healer", 1, moves: 1), World("a + healer", 0, moves: 1),
        World("a -a healer", 1, moves: 1), World("a healer", 2, moves: 2), World("a resync healer", 1, moves: 1),
        World("a ~b healer", 1, moves: 1), World("a a healer", 1, moves: 1, refusals: 1), World("a delete healer", 1, moves: 1),
        World("a healer", 1, moves: 1, zombies: 1),
        // The ledger goes back as well. Whoever installs the product at its new node still raises the fence by a leap.
        World("a healer", 2, moves: 1, failovers: 1), World("a resync healer", 1, moves: 1, failovers: 1),
        // Another ledger is on the same Redis. The first one to install after a flush has the product there. The other one sells without Redis, and changes
        // nothing of it.
        World("a b foreign", 1, flushes: 1), World("a foreign resync", 1, flushes: 1), World("a b foreign healer", 2, flushes: 1),
        World("a + foreign", 1, flushes: 1), World("a -a foreign", 1, flushes: 1), World("a a' foreign foreign", 1, flushes: 1),
        // The other ledger also does not remove the product's keys, or void them in a recovery.
        World("a b foreign mend", 1, flushes: 1), World("a -a foreign mend", 1, flushes: 1), World("a ~b foreign recovery", 1, flushes: 1),
        World("a foreign recovery healer", 1, flushes: 1), World("a mend foreign recovery", 1, flushes: 1),
        // Orders have ids of orders of long ago, which were sold, given back, closed, or of another quantity. No order is confirmed by units that were taken
        // for one of those.
        World("#a b resync", 1, earlier: "a"), World("#a", 1, unheard: 2, earlier: "a"), World("#a &a", 1, unheard: 1, earlier: "a"),
        World("#a -#a b", 1, earlier: "a"), World("#a b", 1, earlier: "-a"), World("#a resync", 1, earlier: "!a"),
        World("#a &a", 1, deaths: 1, earlier: "a"), World("#a resync", 1, zombies: 1, earlier: "a"), World("#a b", 2, earlier: "a=2"),
        World("#a healer", 1, copies: 1, earlier: "a"), World("#a -#a healer", 1, flushes: 1, earlier: "a"),
        // The same without times. Then only a replay or a closed key, as the answer to a first attempt, shows the earlier order.
        World("#a b", 1, timeless: true, earlier: "a"), World("#a b", 1, timeless: true, earlier: "-a"),
        World("#a resync", 1, timeless: true, earlier: "!a"),
        // An order has the id of an order that was just made, so the ledger cannot tell the two apart by their times. One decrease confirms one order, even
        // with a cancellation in between.
        World("#a #a resync", 2), World("#a #a -#a b", 1), World("#a #a", 2, copies: 1), World("#a #a -#a", 1, deaths: 1),
        // The second loses its connection during the commit, sends it again as a first attempt does, and finds the first one's row, or its own.
        World("#a #a", 2, zombies: 1), World("#a #a b", 2, flushes: 1, zombies: 1),
        // The sequence of ids is behind its table: an order that is given an id which has a row takes one above them all. No order is turned away, or driven as another.
        World("#a =a resync", 2), World("#a =a", 2, unheard: 1), World("#a =a -#a", 1), World("#a &a =a", 2),
        // Two servers settle one order, whose first answer is lost or comes late.
        World("#a &a", 2, unheard: 1), World("#a &a b", 1), World("#a &a -#a", 1, unheard: 1), World("#a &a resync", 1, zombies: 1),
    ]
}
