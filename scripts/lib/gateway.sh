# shellcheck shell=bash
# The gateway: nginx in front of all instances of both servers. Its configuration follows INSTANCES; a running gateway takes a changed
# one over without closing a connection.

gateway_binaries() { type -P nginx >/dev/null || die "nginx is not installed: scripts/stack install"; }

# The lines of one upstream group.
gateway_upstream() {
    local n infix
    for ((n = 1; n <= INSTANCES; n++)); do
        infix=
        if ((n > 1)); then infix=${n}_; fi
        printf '        server 127.0.0.1:%s max_fails=1 fail_timeout=1s;\n' "${PORTS[$1_${infix}PORT]}"
    done
}

gateway_prepare() {
    local user=
    mkdir -p "$STACK_DIR/gateway/data"
    # Workers of a master that runs as root do not.
    if ((EUID == 0)); then user='user www-data;'; fi
    render nginx.conf "$STACK_DIR/gateway/nginx.conf" "USER=$user" "PORT=${PORTS[GATEWAY_PORT]}" "DIRECTORY=$STACK_DIR/gateway" \
        "DESCRIPTORS=$(descriptor_limit)" "PRODUCT=$(gateway_upstream PRODUCT)" "ORDER=$(gateway_upstream ORDER)"
}

gateway_launch() { launch gateway pid : nginx -p "$STACK_DIR/gateway" -e stderr -c "$STACK_DIR/gateway/nginx.conf"; }

# True when the running gateway was given another configuration.
gateway_changed() {
    local before master=$PID
    before=$(<"$STACK_DIR/gateway/nginx.conf")
    gateway_prepare
    [[ $before != "$(<"$STACK_DIR/gateway/nginx.conf")" ]] || return 1
    signal HUP "$master"
}

gateway_ready() { http_status "${PORTS[GATEWAY_PORT]}" / 404; }
