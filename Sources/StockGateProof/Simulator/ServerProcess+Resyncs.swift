import StockGate

// Resyncs, the sweep and the audit.

extension ServerProcess {
    // MARK: Resyncs

    func ask(_ product: Int, forced: Bool) {
        guard !work.isEmpty else { return }
        if fault == .askDroppedWhileRunning, work[product].isRunning { return }
        follow(product, work[product].schedule.asked(forced: forced, at: UInt64(simulation.now)))
    }

    func resync(_ product: Int, forced: Bool, then: @escaping (Bool) -> Void) {
        if work[product].isRunning { work[product].laterWaiters.append(then) } else { work[product].waiters.append(then) }
        ask(product, forced: forced)
    }

    func follow(_ product: Int, _ action: ResyncSchedule.Action) {
        switch action {
        case .none: break
        case .wait(let until):
            after(Int(until) - simulation.now) { [self] in
                follow(product, work[product].schedule.timerFired(at: UInt64(simulation.now)))
            }
        case .run(let forced):
            work[product].isRunning = true
            work[product].wasLocked = false
            let machine = PatchedResync(forced: forced, leaping: work[product].isMoved, fault: fault)
            var begun = machine
            let action = begun.began()
            resync(product, at: work[product].node, begun, action)
        }
    }

    /// - Parameter node: where the resync began, to which it keeps.
    func resync(_ product: Int, at node: UInt8, _ machine: PatchedResync, _ action: Resync.Action) {
        var machine = machine
        let next = { [self] (event: (inout PatchedResync) -> Resync.Action) in
            let action = event(&machine)
            resync(product, at: node, machine, action)
        }
        let fault = fault
        switch action {
        case .look:
            let marker = simulation.newMarker()
            redis(product, at: node, "look") { gate, dataset in
                gate.look(newMarker: marker, dataset: dataset, fault: fault)
            } _: { result in
                if case .reply(let view) = result { next { $0.looked(view) } } else { next { $0.stepFailed() } }
            }
        case .readFence:
            simulation.ledger(self, "read fence") { ledger, _ in
                ledger.product(Simulation.id(product))?.fence
            } _: { result in
                if case .reply(let fence) = result { next { $0.fenceRead(fence) } } else { next { $0.stepFailed() } }
            }
        case .bump:
            simulation.ledger(self, "resync bumps") { ledger, _ in
                ledger.bump(Simulation.id(product))
            } _: { result in
                if case .notRun(.lockTimeout) = result { self.work[product].wasLocked = true }
                if case .reply(let state) = result { next { $0.bumped(state) } } else { next { $0.stepFailed() } }
            }
        case .raise(let above):
            simulation.ledger(self, "resync raises") { ledger, _ in
                ledger.raise(Simulation.id(product), above: above)
            } _: { result in
                if case .notRun(.lockTimeout) = result { self.work[product].wasLocked = true }
                if case .reply(let state?) = result { next { $0.raised(state) } } else { next { $0.stepFailed() } }
            }
        case .install(let read, let state):
            redis(product, at: node, "install") { gate, dataset in
                gate.install(state, read: read, dataset: dataset, fault: fault)
            } _: { result in
                if case .reply(let reply) = result { next { $0.installReplied(reply) } } else { next { $0.stepFailed() } }
            }
        case .finish:
            let succeeded = machine.outcome?.hasSucceeded ?? false
            work[product].isRunning = false
            // A resync that succeeds ends the direct sale, unless the ledger has gone back since it began, or the product has left its node.
            if succeeded, !work[product].isMoved || machine.isLeaping, node == work[product].node {
                work[product].isDirect = false
                work[product].isMoved = false
            }
            let waiters = work[product].waiters
            work[product].waiters = work[product].laterWaiters
            work[product].laterWaiters = []
            follow(product, work[product].schedule.ended(succeeded: succeeded, at: UInt64(simulation.now)))
            for waiter in waiters { waiter(succeeded) }
        }
    }

    // MARK: Sweep and audit

    func sweep() {
        guard fault != .sweepOff else { return }
        for product in simulation.products {
            let (now, fault) = (milliseconds, fault)
            guard work[product].sweepRest <= now else { continue }
            redis(product, "overdue") { gate, _ in
                (gate.fence, gate.overdue(now: now, bound: Self.sweepBound), gate.pending.map { now - $0.time }.max())
            } _: { [self] result in
                guard case .reply(let (fence, overdue, oldest)) = result else { return }
                let rest = SweepRest.milliseconds(
                    sawAll: true,
                    overdue: Int64(overdue.count),
                    oldest: oldest,
                    bound: Self.sweepBound,
                    longest: Self.longestSweepRest
                )
                work[product].sweepRest = overdue.isEmpty && fault == .sweepRestsForEver ? .max : now + rest
                guard !overdue.isEmpty else { return }
                if fault == .sweepReleases {
                    let entries = overdue.map {
                        GateModel.ReleaseEntry(key: $0.key, held: Held(fence: fence, token: $0.token), isAbandoned: false)
                    }
                    redis(product, "sweep") { gate, _ in
                        _ = gate.release(entries, fault: fault)
                    } _: { _ in
                    }
                } else {
                    ask(product, forced: true)
                }
            }
        }
    }

    func audit() {
        guard fault != .auditOff, !simulation.plan.isAuditless else { return }
        for product in simulation.products {
            quietLook(product) { [self] differs in
                guard differs else { return }
                after(1_000_000) { [self] in
                    quietLook(product) { [self] differs in
                        if differs { ask(product, forced: true) }
                    }
                }
            }
        }
    }

    /// A quiet look: reads Redis, PostgreSQL, then Redis again. If Redis is unchanged and nothing is pending, reports whether the two differ.
    private func quietLook(_ product: Int, _ done: @escaping (Bool) -> Void) {
        let look: (@escaping (GateView) -> Void) -> Void = { [self] found in
            redis(product, "quiet look") { gate, dataset in
                gate.look(newMarker: "", dataset: dataset)
            } _: { result in
                if case .reply(let view) = result { found(view) }
            }
        }
        look { [self] first in
            simulation.ledger(self, "quiet read") { ledger, _ in
                ledger.product(Simulation.id(product))
            } _: { result in
                guard case .reply(let row?) = result else { return }
                look { second in
                    guard first == second, first.pending == 0 else { return }
                    let expected = row.isOnSale ? row.stock : nil
                    done(!first.isLoaded || first.fence != row.fence || first.counter != expected)
                }
            }
        }
    }
}
