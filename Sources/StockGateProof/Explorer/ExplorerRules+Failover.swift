import StockGate

// The ledger's standby: what it has, its promotion, and how this server finds the new primary.

extension ExplorerRules {
    func failOver(_ state: State, _ emit: Emit) {
        guard let standby = state.rest.standby else { return notice(state, emit) }
        if standby != state.ledger {
            var after = state
            after.rest.standby = state.ledger
            emit(after, ExplorerMove(-1, "the standby has everything"))
        }
        guard state.rest.failovers > 0 else { return }
        var after = state
        after.rest.failovers -= 1
        // An asynchronous standby may lack what was told. A synchronous one lacks nothing that was told.
        if !world.isSynchronous { after.rest.lost += state.ledger.lostKeys(restoring: standby) }
        after.rest.old = state.ledger
        after.ledger = standby
        after.rest.standby = nil
        after.rest.isOnOld = true
        after.rest.isUnreplicated = true
        after.rest.alive = []
        emit(after, ExplorerMove(-1, "the standby is promoted"))
    }

    /// A session of this server is opened at the new primary. Its timeline tells that commits may be lost.
    private func notice(_ state: State, _ emit: Emit) {
        guard state.rest.isOnOld else { return }
        var after = state
        after.rest.isOnOld = false
        if fault != .failoverUnnoticed, healer != nil {
            after.rest.isDirect = true
            after.rest.isMoved = true
            ask(&after, forced: true)
        }
        emit(after, ExplorerMove(-1, "a session finds the new primary"))
    }

    /// A commit of this server at the primary that was replaced. With a synchronous standby it is never answered there.
    func commitAtOld(_ request: CommitRequest, _ state: State, _ next: (State, CommitReply) -> Void) {
        guard var old = state.rest.old, !world.isSynchronous else { return }
        guard state.rest.isOnOld || fault == .oldPrimaryUsed else { return }
        guard let reply = try? old.commit([request], fault: fault).first else { return }
        var after = state
        after.rest.old = old
        // What the old primary tells before this server finds the new one is about rows that are lost with it, as the last commits before the failover are.
        if state.rest.isOnOld { after.rest.lost += old.lostKeys(restoring: state.ledger) }
        next(after, reply)
    }

    /// Reads what became of a key, and tells it. With a synchronous standby a row is told only when the standby has it.
    func read(_ index: Int, _ key: String, _ state: State, _ emit: Emit) {
        var after = state
        let isSold = state.ledger.lookUp(key)?.direction == .out
        if isSold, world.isSynchronous, state.rest.standby != nil, fault != .readNotReplicated { after.rest.standby = state.ledger }
        after.actors[index] = .done(isSold ? .yes : .nothing)
        emit(after, ExplorerMove(index, "read the key"))
    }
}
