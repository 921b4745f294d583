# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153 # functions answer in variables that their callers read; PORTS is the stack's
# The ledger that fails over by itself (TOPOLOGY=ha): each of postgres and postgres-2 is run by a Patroni of its own, and the two agree on the primary by Raft, with `raft` as the
# third who votes and has no data. Patroni makes the first primary, makes standbys, promotes the standby when the primary has not been heard of for `ttl`, and keeps the
# primary waiting for its standby as long as there is one.
# Layout: postgres/server -> data, socket, postgresql.conf, pg_hba.conf, patroni.yml, raft; raft/server -> patroni.yml, raft. All owned by the user that PostgreSQL runs as.
#
# Invariant: the record of a node is its Patroni's. The server of PostgreSQL below it is no child of it, and is found by the number that it wrote into its data, if it runs there.
# What kills, pauses or resumes a node does so to both: a machine that dies takes its manager along.

# Whether PostgreSQL is Patroni's affair here.
managed() { [[ $TOPOLOGY == ha ]]; }

# Python without assertions, its compiled files in folder $1. One assertion of pysyncobj (0.3.11 and 0.3.13 have it; issue 189 of bakwc/PySyncObj) fails where an answer arrives over a connection
# that was replaced meanwhile. It ends the thread that speaks to the other nodes, and a manager without that thread neither leads nor follows until it is started again; without the
# assertion the one question is asked again after `retry_timeout`. The other assertions check settings, and that a packet is no copy of an earlier one: only root could
# send such a copy on loopback.
patroni_python() { PYTHON_AS=(env PYTHONOPTIMIZE=1 "PYTHONPYCACHEPREFIX=$1/compiled"); }

# What such a stack needs of the machine besides.
readonly PATRONI_NEEDED=(
    patroni:patroni
    'python3-pysyncobj:/usr/lib/python3/dist-packages/pysyncobj/__init__.py'
    'python3-cryptography:/usr/lib/python3/dist-packages/cryptography/__init__.py'
)

patroni_binaries() {
    missing_of "${PATRONI_NEEDED[@]}"
    ((${#MISSING[@]} == 0)) || die "missing: ${MISSING[*]}: scripts/stack install"
}

# Sets PRIMARY to the name of the node that takes writes, or to nothing.
patroni_primary() {
    local name
    PRIMARY=
    postgres_binaries
    for name in postgres postgres-2; do
        if patroni_leads "$name"; then
            PRIMARY=$name
            return 0
        fi
    done
}

# Whether node $1 has the lock and takes writes: it has the lock a moment before its server is promoted.
patroni_leads() {
    patroni_port "$1"
    patroni_says /primary && [[ $(printf 'SELECT pg_is_in_recovery();\n' | postgres_sql "$1" 2>/dev/null) == f ]]
}

# Sets PATRONI_PORT_OF to the port at which the manager of node $1 answers.
patroni_port() {
    if [[ $1 == postgres ]]; then PATRONI_PORT_OF=${PORTS[POSTGRES_MANAGER_PORT]}; else PATRONI_PORT_OF=${PORTS[POSTGRES_${1#*-}_MANAGER_PORT]}; fi
}

# Whether the manager at PATRONI_PORT_OF answers 200 to the question $1. The whole answer is taken: it logs a page where one hangs up in the middle.
patroni_says() { [[ $(curl -s -o /dev/null -w '%{http_code}' --max-time 2 "http://127.0.0.1:$PATRONI_PORT_OF$1") == 200 ]]; }

# The part about Raft of a node's file: own port $1, of which the others' are the rest; the folder $2.
patroni_raft() {
    local port
    # Without bind_addr it listens on every address of the machine.
    printf 'raft:\n  self_addr: 127.0.0.1:%s\n  bind_addr: 127.0.0.1:%s\n  data_dir: %s/raft\n  password: %s\n  partner_addrs:\n' "$1" "$1" "$2" "$RAFT_PASSWORD"
    for port in "${PORTS[POSTGRES_RAFT_PORT]}" "${PORTS[POSTGRES_2_RAFT_PORT]}" "${PORTS[RAFT_PORT]}"; do
        if [[ $port != "$1" ]]; then printf '  - 127.0.0.1:%s\n' "$port"; fi
    done
}

# Checks that node $1, whose folder is $2, has the ports that it had before: the nodes know each other by them, and what each has agreed to is in files named after them.
patroni_settle_raft() {
    local ports="${PORTS[POSTGRES_RAFT_PORT]} ${PORTS[POSTGRES_2_RAFT_PORT]} ${PORTS[RAFT_PORT]}"
    if [[ -d $2/raft && $(<"$STACK_DIR/$1/raft-ports") != "$ports" ]]; then
        die "$1: its nodes agreed by the ports $(<"$STACK_DIR/$1/raft-ports"), now taken by others: set POSTGRES_RAFT_PORT, POSTGRES_2_RAFT_PORT and RAFT_PORT to them when they are free, or scripts/stack destroy"
    fi
    printf '%s\n' "$ports" >"$STACK_DIR/$1/raft-ports"
    mkdir -p "$2/raft"
    if ((EUID == 0)); then chown postgres: "$2/raft"; fi
}

# Completes the files of node $1, in $2, which belongs to the operating system's user $3.
patroni_prepare() {
    local raft
    patroni_binaries
    if [[ -d $2/data && ! -e $2/patroni.yml ]]; then die "$1: its data are of a stack without Patroni: scripts/stack destroy removes it"; fi
    postgres_port "$1"
    patroni_port "$1"
    patroni_settle_raft "$1" "$2"
    if [[ $1 == postgres ]]; then raft=${PORTS[POSTGRES_RAFT_PORT]}; else raft=${PORTS[POSTGRES_2_RAFT_PORT]}; fi
    # The standby comes from the other node with a password.
    printf 'host    replication   stockgate_replication   127.0.0.1/32   scram-sha-256\n' >>"$2/pg_hba.conf"
    render patroni.yml "$2/patroni.yml" "NAME=$1" "PORT=$POSTGRES_PORT_OF" "MANAGER_PORT=$PATRONI_PORT_OF" "HOME=$2" "SOCKET=$POSTGRES_SOCKET" "BIN=$POSTGRES_BIN" "USER=$3" \
        "REPLICATION_PASSWORD=$REPLICATION_PASSWORD" "REWIND_PASSWORD=$REWIND_PASSWORD" "MANAGER_PASSWORD=$MANAGER_PASSWORD" "RAFT=$(patroni_raft "$raft" "$2")"
    if ((EUID == 0)); then chown postgres: "$2/patroni.yml"; fi
}

patroni_launch() {
    local home
    home=$(readlink -f "$STACK_DIR/$1/server")
    patroni_python "$home"
    launch "$1" pid postgres_enter "${POSTGRES_AS[@]}" "${PYTHON_AS[@]}" patroni "$home/patroni.yml"
}

# True when node $1 is the primary and has the databases, or the standby that the primary waits for.
patroni_ready() {
    if patroni_leads "$1"; then
        if [[ ! -e $STACK_DIR/postgres/databases-made ]]; then
            mkdir -p "$STACK_DIR/postgres"
            postgres_make_databases "$1"
        fi
        return 0
    fi
    patroni_port "$1"
    if patroni_says /synchronous; then
        # Of a time before, where nobody is the primary yet.
        patroni_primary
        if [[ -n $PRIMARY ]]; then return 0; fi
    fi
    # It answers with a thread of its own for each question, on a machine that has just much else to do.
    sleep 0.2
    return 1
}

# Sets PID to the server of PostgreSQL that runs in the data of node $1; fails when there is none.
patroni_postmaster() {
    local home comm
    PID=
    home=$(readlink -f "$STACK_DIR/$1/server") || return 1
    { read -r PID <"$home/data/postmaster.pid"; } 2>/dev/null || return 1
    { [[ $PID =~ ^[0-9]+$ ]] && read -r comm <"/proc/$PID/comm" && [[ $comm == postgres && /proc/$PID/cwd -ef $home/data ]] && exists "$PID"; } 2>/dev/null || {
        PID=
        return 1
    }
}

# Ends node $1 at once: nobody of it is left who could say farewell to the others.
patroni_kill() {
    local manager=
    if live "$1"; then
        manager=$PID
        pause_tree "$manager"
    fi
    if patroni_postmaster "$1"; then kill_tree "$PID"; fi
    if [[ -n $manager ]]; then kill_tree "$manager"; fi
}

# MARK: The third who votes

raft_prepare() {
    local home
    patroni_binaries
    postgres_home raft
    home=$POSTGRES_HOME
    patroni_settle_raft raft "$home"
    (umask 077 && patroni_raft "${PORTS[RAFT_PORT]}" "$home" >"$home/patroni.yml")
    if ((EUID == 0)); then chown postgres: "$home/patroni.yml"; fi
}

raft_launch() {
    local home
    home=$(readlink -f "$STACK_DIR/raft/server")
    patroni_python "$home"
    launch raft pid postgres_enter "${POSTGRES_AS[@]}" "${PYTHON_AS[@]}" patroni_raft_controller "$home/patroni.yml"
}

raft_ready() {
    { exec 7<>"/dev/tcp/127.0.0.1/${PORTS[RAFT_PORT]}"; } 2>/dev/null || return 1
    exec 7>&-
}
