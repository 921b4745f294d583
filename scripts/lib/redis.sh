# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153 # functions answer in variables that their callers read; PORTS is the stack's
# The gate: one server; a master and a replica (redis, redis-2), over which sentinels watch; or a cluster of six (redis, redis-2 … redis-6), of which the first three are its
# masters to begin with. It keeps no stock on disk: what it holds can always be made again from the ledger, and a lost gate is what the project is about. A node of a cluster
# keeps what it knows of the others. Which of two is the master is the sentinels' affair (`sentinel.sh`): a server that starts follows the one that they have.

# Sets REDIS_INFIX to what stands in the names of the ports of node $1.
redis_infix() {
    REDIS_INFIX=
    if [[ $1 == redis-* ]]; then REDIS_INFIX=${1#*-}_; fi
}

redis_prepare() {
    local root=$STACK_DIR/$1
    type -P redis-server >/dev/null || die "redis-server is not installed: scripts/stack install"
    redis_infix "$1"
    mkdir -p "$root/data"
    render redis.conf "$root/redis.conf" "PORT=${PORTS[REDIS_${REDIS_INFIX}PORT]}" "DATA=$root/data"
    if [[ $REDIS_MODE == sentinel ]]; then
        redis_master
        if [[ $MASTER != "$1" ]]; then
            redis_infix "$MASTER"
            printf 'replicaof 127.0.0.1 %s\n' "${PORTS[REDIS_${REDIS_INFIX}PORT]}" >>"$root/redis.conf"
        fi
        # One that was away for a moment gets what it missed, not everything.
        printf 'repl-diskless-sync-delay 0\nrepl-timeout 10\n' >>"$root/redis.conf"
    fi
    if [[ $REDIS_MODE == cluster ]]; then
        # Where a shard is down the others go on, and its products are sold without Redis.
        printf '%s\n' 'cluster-enabled yes' 'cluster-config-file nodes.conf' "cluster-port ${PORTS[REDIS_${REDIS_INFIX}BUS_PORT]}" 'cluster-node-timeout 2000' \
            'cluster-require-full-coverage no' 'cluster-replica-validity-factor 0' 'cluster-allow-replica-migration no' >>"$root/redis.conf"
    fi
}

redis_launch() { launch "$1" pid : redis-server "$STACK_DIR/$1/redis.conf"; }

# True when Redis answers PING. A Redis that still loads answers with an error.
redis_ready() {
    redis_infix "$1"
    redis_answers "${PORTS[REDIS_${REDIS_INFIX}PORT]}"
}

# Whether PING is answered at port $1.
redis_answers() {
    local answer=
    { exec 7<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf 'PING\r\n' >&7
    read -r -t 1 -u 7 answer || true
    exec 7>&-
    [[ $answer == +PONG* ]]
}

# Makes the cluster at its first start, and waits until every node that runs says that it is well.
redis_cluster() {
    local n infix nodes=() deadline addresses=()
    [[ $REDIS_MODE == cluster ]] || return 0
    for ((n = 1; n <= REDIS_NODES; n++)); do
        infix=
        if ((n > 1)); then infix=${n}_; fi
        addresses+=("${PORTS[REDIS_${infix}PORT]}")
        nodes+=("127.0.0.1:${PORTS[REDIS_${infix}PORT]}@${PORTS[REDIS_${infix}BUS_PORT]}")
    done
    if [[ ! -e $STACK_DIR/redis/clustered ]]; then
        # A first start that was interrupted may have left half a cluster.
        for n in "${addresses[@]}"; do redis-cli -p "$n" cluster reset hard >/dev/null || die "redis: the node at port $n does not answer"; done
        redis-cli --cluster create "${nodes[@]}" --cluster-replicas 1 --cluster-yes >>"$STACK_DIR/redis/log" 2>&1 ||
            fail_start redis "the nodes do not become a cluster"
        : >"$STACK_DIR/redis/clustered"
    fi
    now
    deadline=$((NOW + 30000))
    for n in "${addresses[@]}"; do
        # Each node hears of the others' roles at its own time.
        until [[ $(redis-cli -p "$n" cluster info 2>/dev/null) == *cluster_state:ok*cluster_slots_ok:16384* &&
            $(redis-cli -p "$n" cluster nodes 2>/dev/null | grep -c slave) == $((REDIS_NODES / 2)) ]]; do
            now
            ((NOW < deadline)) || die "redis: the cluster is not well after 30 seconds (redis-cli -p $n cluster info)"
            sleep 0.05
        done
    done
}

# Sets MASTER to the first node of the cluster that is a master with slots, as a node that answers has it.
redis_any_master() {
    local n infix port line said ports=()
    for ((n = 1; n <= REDIS_NODES; n++)); do
        infix=
        if ((n > 1)); then infix=${n}_; fi
        ports+=("${PORTS[REDIS_${infix}PORT]}")
    done
    for port in "${ports[@]}"; do
        said=$(redis-cli -p "$port" cluster nodes 2>/dev/null) || continue
        for ((n = 1; n <= REDIS_NODES; n++)); do
            while read -r line; do
                # id, address, flags, master, ping, pong, epoch, link, slots
                if [[ $line =~ ^[0-9a-f]+\ 127\.0\.0\.1:${ports[n - 1]}@[0-9]+[^\ ]*\ (myself,)?master\ .*\ connected\ [0-9] ]]; then
                    MASTER=redis
                    if ((n > 1)); then MASTER=redis-$n; fi
                    return 0
                fi
            done <<<"$said"
        done
    done
    die "no node of Redis names a master"
}
