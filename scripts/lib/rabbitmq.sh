# shellcheck shell=bash
# The broker, with an epmd of its own. Everything that Erlang would look for in the home folder or in /etc is inside the stack.
# epmd has its own record, `rabbitmq/epmd-pid`, and ends with the broker.

rabbitmq_binaries() {
    [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || die "rabbitmq-server is not installed: scripts/stack install"
    type -P epmd >/dev/null || die "epmd is not installed: it comes with rabbitmq-server"
}

rabbitmq_prepare() {
    local root=$STACK_DIR/rabbitmq
    mkdir -p "$root/data" "$root/home"
    render rabbitmq.conf "$root/rabbitmq.conf" "PORT=${PORTS[RABBITMQ_PORT]}" "PASSWORD=$RABBITMQ_PASSWORD"
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

# What the broker and rabbitmqctl share.
rabbitmq_environment() {
    local root=$STACK_DIR/rabbitmq
    unset "${!RABBITMQ_@}" NOTIFY_SOCKET
    export HOME=$root/home
    export ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=${PORTS[EPMD_PORT]} ERL_CRASH_DUMP=/dev/null
    export RABBITMQ_NODENAME=stockgate-${PORTS[RABBITMQ_PORT]}@localhost
    export RABBITMQ_CONF_ENV_FILE=$root/rabbitmq-env.conf
    export RABBITMQ_CONFIG_FILE=$root/rabbitmq.conf
    export RABBITMQ_ADVANCED_CONFIG_FILE=$root/none.config
    export RABBITMQ_ENABLED_PLUGINS_FILE=$root/enabled_plugins
    export RABBITMQ_MNESIA_BASE=$root/data RABBITMQ_LOG_BASE=$root RABBITMQ_LOGS=-
    export RABBITMQ_PID_FILE=$root/rabbitmq.pid
    export RABBITMQ_DIST_PORT=${PORTS[RABBITMQ_DIST_PORT]}
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
    export RABBITMQ_CTL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
    # The launcher then becomes the broker itself instead of standing beside it, so that the recorded pid is the broker's.
    export RUNNING_UNDER_SYSTEMD=true
}

rabbitmq_launch() {
    local tries
    launch rabbitmq epmd-pid rabbitmq_environment epmd -address 127.0.0.1 -port "${PORTS[EPMD_PORT]}"
    # A broker that finds no epmd would start one of its own.
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
    launch rabbitmq pid rabbitmq_environment /usr/lib/rabbitmq/bin/rabbitmq-server
}

# True when the broker speaks AMQP: it opens its port at the end of its start.
rabbitmq_ready() {
    local byte=
    { exec 7<>"/dev/tcp/127.0.0.1/${PORTS[RABBITMQ_PORT]}"; } 2>/dev/null || return 1
    printf 'AMQP\0\0\x09\x01' >&7
    # Its first answer is a method frame, which begins with 1.
    IFS= read -r -t 2 -N 1 -u 7 byte || true
    exec 7>&-
    [[ $byte == $'\x01' ]]
}

rabbitmq_cleanup() {
    if live_record rabbitmq/epmd-pid; then
        signal TERM "$PID"
        gone 2000 "$PID" || signal KILL "$PID"
    fi
    rm -f "$STACK_DIR/rabbitmq/epmd-pid"
}
