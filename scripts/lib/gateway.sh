# shellcheck shell=bash
# The gateway: nginx in front of all instances of both servers. Its configuration follows INSTANCES; a running gateway takes a changed
# one over without closing a connection. What passes it is in the template, `nginx.conf`.

gateway_binaries() { type -P nginx >/dev/null || die "nginx is not installed: scripts/stack install"; }

# gateway_upstream PRODUCT|ORDER FAILURES: the lines of one upstream group. So many failures within a second take an instance out of it for a second; 0: none do.
gateway_upstream() {
    local n infix
    for ((n = 1; n <= INSTANCES; n++)); do
        infix=
        if ((n > 1)); then infix=${n}_; fi
        printf '        server 127.0.0.1:%s max_fails=%s fail_timeout=1s;\n' "${PORTS[$1_${infix}PORT]}" "$2"
    done
}

# What the template's patterns are made of. A segment that is a value: what RFC 3986 lets stand in a path, but neither `.` nor `..`, however they are written.
# An id or a code of a product: its own characters, as they are or percent-encoded, so that no such segment can hold a slash when it is decoded.
GATEWAY_NO_DOTS='(?!(?:[.]|%2[Ee]){1,2}(?:[/?]|$))'
GATEWAY_SEGMENT="$GATEWAY_NO_DOTS"'[A-Za-z0-9._~!$&\x27()*+,;=:@%-]+'
GATEWAY_PRODUCT_ID="$GATEWAY_NO_DOTS"'(?:[A-Za-z0-9._-]|%(?:2[DEde]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]))+'
GATEWAY_END='/?(?:[?]|$)'
# What `Connection` may name: fields that the gateway never passes on.
GATEWAY_HOP='(?:close|keep-alive|upgrade|te|trailers?|transfer-encoding|content-length|expect|proxy-connection|proxy-authorization|proxy-authenticate|http2-settings)'

# Checks and completes the gateway's settings.
gateway_settings() {
    GATEWAY_CONNECTIONS_PER_ADDRESS=${GATEWAY_CONNECTIONS_PER_ADDRESS:-2048}
    if ! [[ $GATEWAY_CONNECTIONS_PER_ADDRESS =~ ^(0|[1-9][0-9]{0,4})$ ]] || ((GATEWAY_CONNECTIONS_PER_ADDRESS > 65535)); then
        usage_error "GATEWAY_CONNECTIONS_PER_ADDRESS=$GATEWAY_CONNECTIONS_PER_ADDRESS: a number from 1 to 65535, or 0 for no bound"
    fi
    GATEWAY_READ_TIMEOUT=${GATEWAY_READ_TIMEOUT:-60s}
    [[ $GATEWAY_READ_TIMEOUT =~ ^[1-9][0-9]{0,5}(ms|s)$ ]] ||
        usage_error "GATEWAY_READ_TIMEOUT=$GATEWAY_READ_TIMEOUT: a whole number of ms or s, such as 60s"
}

gateway_prepare() {
    local user='' limit='' stock='# ' stock_upstream='' token=''
    mkdir -p "$STACK_DIR/gateway/data"
    gateway_settings
    # Workers of a master that runs as root do not.
    if ((EUID == 0)); then user='user www-data;'; fi
    if ((GATEWAY_CONNECTIONS_PER_ADDRESS == 0)); then limit='# '; fi
    if [[ $GATEWAY_PUBLIC_STOCK == true ]]; then
        stock='' stock_upstream=$(gateway_upstream PRODUCT 10) token=$GATEWAY_SERVICE_TOKEN
        warn_public_stock
    fi
    render nginx.conf "$STACK_DIR/gateway/nginx.conf" "USER=$user" "PORT=${PORTS[GATEWAY_PORT]}" "DIRECTORY=$STACK_DIR/gateway" \
        "DESCRIPTORS=$(descriptor_limit)" "LIMIT=$limit" "CONNECTIONS=$GATEWAY_CONNECTIONS_PER_ADDRESS" "READ_TIMEOUT=$GATEWAY_READ_TIMEOUT" \
        "PRODUCT=$(gateway_upstream PRODUCT 10)" "ORDER=$(gateway_upstream ORDER 10)" "ORDER_WAIT=$(gateway_upstream ORDER 0)" \
        "STOCK=$stock" "PRODUCT_STOCK=$stock_upstream" "SERVICE_TOKEN=$token" \
        "SEGMENT=$GATEWAY_SEGMENT" "PRODUCT_ID=$GATEWAY_PRODUCT_ID" "END=$GATEWAY_END" "HOP=$GATEWAY_HOP"
}

# The switch is for a machine of one's own.
warn_public_stock() {
    warn "GATEWAY_PUBLIC_STOCK=true: whoever reaches the gateway can change stock, prices and products. Never on a gateway that strangers reach"
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
