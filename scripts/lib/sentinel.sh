# shellcheck shell=bash
# The sentinels: sentinel, sentinel-2, sentinel-3. They watch over redis and redis-2, and two of them make the replica the master when they miss the master.
#
# Invariant: a sentinel's file is its memory. It writes there, and syncs, which server is the master and under which number (config-epoch) before anybody hears of it.
# So the file with the greatest number tells the master, also while no sentinel runs. A file is made anew only where the stack has other ports than those in it.

# Sets MASTER to the name of the server of Redis that takes writes.
redis_master() {
    local name line epoch port best=-1 infix n
    MASTER=redis
    [[ $REDIS_MODE == sentinel ]] || return 0
    for name in sentinel sentinel-2 sentinel-3; do
        sentinel_knows_ports "$name" || continue
        epoch=0 port=
        while read -r line; do
            if [[ $line =~ ^sentinel\ monitor\ stockgate\ 127\.0\.0\.1\ ([0-9]+)\  ]]; then port=${BASH_REMATCH[1]}; fi
            if [[ $line =~ ^sentinel\ config-epoch\ stockgate\ ([0-9]+)$ ]]; then epoch=${BASH_REMATCH[1]}; fi
        done <"$STACK_DIR/$name/sentinel.conf"
        ((epoch > best)) || continue
        for ((n = 1; n <= REDIS_NODES; n++)); do
            infix=
            if ((n > 1)); then infix=${n}_; fi
            if [[ ${PORTS[REDIS_${infix}PORT]} == "$port" ]]; then
                best=$epoch MASTER=redis
                if ((n > 1)); then MASTER=redis-$n; fi
            fi
        done
    done
}

# The ports that a sentinel's file was made for.
sentinel_ports() { printf '%s' "${PORTS[REDIS_PORT]} ${PORTS[REDIS_2_PORT]} ${PORTS[SENTINEL_PORT]} ${PORTS[SENTINEL_2_PORT]} ${PORTS[SENTINEL_3_PORT]}"; }
sentinel_knows_ports() { [[ -r $STACK_DIR/$1/sentinel.conf && -r $STACK_DIR/$1/made-for && $(<"$STACK_DIR/$1/made-for") == "$(sentinel_ports)" ]]; }

# Sets SENTINEL_PORT_OF to the port of sentinel $1.
sentinel_port() {
    if [[ $1 == sentinel ]]; then SENTINEL_PORT_OF=${PORTS[SENTINEL_PORT]}; else SENTINEL_PORT_OF=${PORTS[SENTINEL_${1#*-}_PORT]}; fi
}

sentinel_prepare() {
    local root=$STACK_DIR/$1
    type -P redis-server >/dev/null || die "redis-server is not installed: scripts/stack install"
    mkdir -p "$root/data"
    if sentinel_knows_ports "$1"; then return 0; fi
    sentinel_port "$1"
    redis_master
    redis_infix "$MASTER"
    render sentinel.conf "$root/sentinel.conf" "PORT=$SENTINEL_PORT_OF" "DATA=$root/data" "MASTER_PORT=${PORTS[REDIS_${REDIS_INFIX}PORT]}"
    sentinel_ports >"$root/made-for"
}

sentinel_launch() { launch "$1" pid : redis-server "$STACK_DIR/$1/sentinel.conf" --sentinel; }

sentinel_ready() {
    sentinel_port "$1"
    redis_answers "$SENTINEL_PORT_OF"
}

# Waits until every sentinel that runs knows the others and the replica, and says that enough of them run for a failover. Without that a master that dies now is missed by nobody.
sentinels_agree() {
    local name deadline running=0 said
    [[ $REDIS_MODE == sentinel ]] || return 0
    for name in sentinel sentinel-2 sentinel-3; do
        if live "$name" && [[ $PROC_STATE != [Tt] ]]; then ((running += 1)); fi
    done
    # Fewer than two cannot; and where a server of Redis is away there is nothing to wait for.
    ((running >= 2)) || return 0
    for name in redis redis-2; do
        if ! live "$name" || [[ $PROC_STATE == [Tt] ]]; then return 0; fi
    done
    now
    deadline=$((NOW + 40000))
    for name in sentinel sentinel-2 sentinel-3; do
        if ! live "$name" || [[ $PROC_STATE == [Tt] ]]; then continue; fi
        sentinel_port "$name"
        # Pairs of a name and a value, one a line. The replica must be up to date as well: another is not made the master.
        until said=$(redis-cli -p "$SENTINEL_PORT_OF" sentinel master stockgate 2>/dev/null | paste -sd' ') &&
            [[ " $said " == *" flags master "* && $said =~ num-other-sentinels\ ([0-9]+) && ${BASH_REMATCH[1]} -ge $((running - 1)) ]] &&
            said=$(redis-cli -p "$SENTINEL_PORT_OF" sentinel replicas stockgate 2>/dev/null | paste -sd' ') &&
            [[ " $said " == *" flags slave "* && $said == *"master-link-status ok"* ]]; do
            now
            ((NOW < deadline)) || die "$name: the sentinels, the master and its replica do not know each other after 40 seconds (redis-cli -p $SENTINEL_PORT_OF sentinel master stockgate)"
            sleep 0.05
        done
    done
}
