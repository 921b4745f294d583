# shellcheck shell=bash
# The broker: one node, or a cluster of up to three (rabbitmq, rabbitmq-2, rabbitmq-3), with an epmd of its own. Everything that Erlang would look for in the
# home folder or in /etc is inside the stack. epmd has a folder and a record of its own, `epmd/epmd-pid`; all nodes ask it, and it ends with the last of them.

rabbitmq_binaries() {
    [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || die "rabbitmq-server is not installed: scripts/stack install"
    type -P epmd >/dev/null || die "epmd is not installed: it comes with rabbitmq-server"
}

# Sets INFIX to what stands in the names of the ports of node $1.
rabbitmq_infix() {
    INFIX=
    if [[ $1 == rabbitmq-* ]]; then INFIX=${1#*-}_; fi
}

rabbitmq_prepare() {
    local root=$STACK_DIR/$1
    rabbitmq_infix "$1"
    mkdir -p "$root/data" "$root/home"
    render rabbitmq.conf "$root/rabbitmq.conf" "PORT=${PORTS[RABBITMQ_${INFIX}PORT]}" "PASSWORD=$RABBITMQ_PASSWORD"
    if ((RABBITMQ_NODES > 1)); then
        # A node that sees fewer than half of the others stops until it sees more, so that two halves never go on side by side; a node that hangs is given up
        # after ten seconds.
        printf 'cluster_partition_handling = pause_minority\nnet_ticktime = 8\n' >>"$root/rabbitmq.conf"
    fi
    # The first node begins the cluster alone; the others join it at their own first start.
    if [[ $1 != rabbitmq ]]; then
        printf 'cluster_formation.peer_discovery_backend = classic_config\ncluster_formation.classic_config.nodes.1 = stockgate-%s@localhost\n' \
            "${PORTS[RABBITMQ_PORT]}" >>"$root/rabbitmq.conf"
    fi
    # Lines of one's own, such as a listener for TLS.
    if [[ -r $root/more.conf ]]; then cat -- "$root/more.conf" >>"$root/rabbitmq.conf"; fi
    (
        umask 077
        printf '[].\n' >"$root/enabled_plugins"
        : >"$root/rabbitmq-env.conf"
        # Erlang insists that only its owner can read it.
        rm -f "$root/home/.erlang.cookie"
        printf '%s' "$RABBITMQ_COOKIE" >"$root/home/.erlang.cookie"
        chmod 400 "$root/home/.erlang.cookie"
    )
}

# What a node and rabbitmqctl share. The node is $1, the first one if there is no $1.
rabbitmq_environment() {
    local root=$STACK_DIR/${1:-rabbitmq}
    rabbitmq_infix "${1:-rabbitmq}"
    unset "${!RABBITMQ_@}" NOTIFY_SOCKET
    export HOME=$root/home
    export ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=${PORTS[EPMD_PORT]} ERL_CRASH_DUMP=/dev/null
    export RABBITMQ_NODENAME=stockgate-${PORTS[RABBITMQ_${INFIX}PORT]}@localhost
    export RABBITMQ_CONF_ENV_FILE=$root/rabbitmq-env.conf
    export RABBITMQ_CONFIG_FILE=$root/rabbitmq.conf
    export RABBITMQ_ADVANCED_CONFIG_FILE=$root/none.config
    export RABBITMQ_ENABLED_PLUGINS_FILE=$root/enabled_plugins
    export RABBITMQ_MNESIA_BASE=$root/data RABBITMQ_LOG_BASE=$root RABBITMQ_LOGS=-
    export RABBITMQ_PID_FILE=$root/rabbitmq.pid
    export RABBITMQ_DIST_PORT=${PORTS[RABBITMQ_${INFIX}DIST_PORT]}
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
    export RABBITMQ_CTL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
    # The launcher then becomes the broker itself instead of standing beside it, so that the recorded pid is the broker's.
    export RUNNING_UNDER_SYSTEMD=true
}

epmd_environment() { rabbitmq_environment rabbitmq; }

# Starts epmd where it does not run. Nodes that are started together wait for the one that does so.
epmd_launch() {
    # shellcheck disable=SC2034 # `launch` sets it, and the caller's is kept for the node
    local tries LAUNCHED
    mkdir -p "$STACK_DIR/epmd"
    exec 6>>"$STACK_DIR/epmd/lock"
    flock -w 20 6 || die "epmd: another start has been busy with it for 20 seconds"
    if ! live_record epmd/epmd-pid; then
        launch epmd epmd-pid epmd_environment epmd -address 127.0.0.1 -port "${PORTS[EPMD_PORT]}"
        # A node that finds no epmd would start one of its own.
        for ((tries = 0; tries < 200; tries++)); do
            if { exec 7<>"/dev/tcp/127.0.0.1/${PORTS[EPMD_PORT]}"; } 2>/dev/null; then
                # It logs a connection without a question, so ask for its list of names.
                printf '\0\x01n' >&7
                IFS= read -r -t 1 -u 7 || true
                exec 7>&-
                break
            fi
            sleep 0.01
        done
    fi
    exec 6>&-
}

rabbitmq_launch() {
    epmd_launch
    launch "$1" pid rabbitmq_environment /usr/lib/rabbitmq/bin/rabbitmq-server
}

# True when the broker speaks AMQP: it opens its port at the end of its start.
rabbitmq_ready() {
    local byte=
    rabbitmq_infix "$1"
    { exec 7<>"/dev/tcp/127.0.0.1/${PORTS[RABBITMQ_${INFIX}PORT]}"; } 2>/dev/null || return 1
    printf 'AMQP\0\0\x09\x01' >&7
    # Its first answer is a method frame, which begins with 1.
    IFS= read -r -t 2 -N 1 -u 7 byte || true
    exec 7>&-
    [[ $byte == $'\x01' ]] || return 1
    # Its data belong to the cluster from now on.
    : >"$STACK_DIR/$1/joined"
}

rabbitmq_cleanup() {
    local name
    for name in rabbitmq rabbitmq-2 rabbitmq-3; do
        if live "$name"; then return 0; fi
    done
    if live_record epmd/epmd-pid; then
        signal TERM "$PID"
        gone 2000 "$PID" || signal KILL "$PID"
    fi
    rm -f "$STACK_DIR/epmd/epmd-pid"
}
