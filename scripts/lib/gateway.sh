# shellcheck shell=bash
# The gateway: nginx in front of all instances of both servers. Its configuration follows INSTANCES; a running gateway takes a changed
# one over without closing a connection. What passes it is in the template, `nginx.conf`.

gateway_binaries() { type -P nginx >/dev/null || die "nginx is not installed: scripts/stack install"; }

# gateway_upstream PRODUCT|ORDER FAILURES [CELL]: the lines of one upstream group. So many failures within a second take an instance out of it for a second; 0: none do.
gateway_upstream() {
    local n infix CELL
    count_of "${1,,}"
    for ((n = 1; n <= COUNT; n++)); do
        cell_of_server "$n"
        if [[ -n ${3-} && $CELL != "$3" ]]; then continue; fi
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

# The quality behind a name of `Accept` or `Accept-Language`, before and behind its digits: other parameters are passed over, and it may be left out.
GATEWAY_QUALITY_BEGIN='(?:[ \t]*+;[ \t]*+(?!q[ \t]*=)[^;,]*)*(?:[ \t]*;[ \t]*q[ \t]*=[ \t]*'
GATEWAY_QUALITY_END=')?[ \t]*(?:,|;|$)'
# Qualities as the template writes them: 1, and what counts as not asked for.
GATEWAY_ONE='q(?:1(?:[.]0{0,3})?)?'
GATEWAY_NONE='(?:-|q0(?:[.]0{0,3})?)'
# Two qualities of which the first is greater, in the first decimal.
GATEWAY_GREATER="^(?:$GATEWAY_ONE (?:$GATEWAY_NONE|q0[.][0-9]+)|q0[.]0*[1-9][0-9]* $GATEWAY_NONE"
for digit in 1 2 3 4 5 6 7 8 9; do GATEWAY_GREATER+="|q0[.]${digit}[0-9]* q0[.][0-$((digit - 1))][0-9]*"; done
GATEWAY_GREATER+=')(?: |$)'
unset digit
# RFC 3986, 3.2.2: IPv6address.
GATEWAY_IPV6=$(
    h='[0-9A-Fa-f]{1,4}' o='(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
    l="(?:$h:$h|$o(?:[.]$o){3})"
    printf '(?:(?:%s:){6}%s|::(?:%s:){5}%s' "$h" "$l" "$h" "$l"
    for n in 0 1 2 3; do printf '|(?:(?:%s:){0,%s}%s)?::(?:%s:){%s}%s' "$h" "$n" "$h" "$h" $((4 - n)) "$l"; done
    printf '|(?:(?:%s:){0,4}%s)?::%s|(?:(?:%s:){0,5}%s)?::%s|(?:(?:%s:){0,6}%s)?::)' "$h" "$h" "$l" "$h" "$h" "$h" "$h" "$h"
)

# Checks and completes the gateway's settings.
gateway_settings() {
    GATEWAY_CONNECTIONS_PER_ADDRESS=${GATEWAY_CONNECTIONS_PER_ADDRESS:-2048}
    if ! [[ $GATEWAY_CONNECTIONS_PER_ADDRESS =~ ^(0|[1-9][0-9]{0,4})$ ]] || ((GATEWAY_CONNECTIONS_PER_ADDRESS > 65535)); then
        usage_error "GATEWAY_CONNECTIONS_PER_ADDRESS=$GATEWAY_CONNECTIONS_PER_ADDRESS: a number from 1 to 65535, or 0 for no bound"
    fi
    GATEWAY_READ_TIMEOUT=${GATEWAY_READ_TIMEOUT:-60s}
    [[ $GATEWAY_READ_TIMEOUT =~ ^[1-9][0-9]{0,5}(ms|s)$ ]] ||
        usage_error "GATEWAY_READ_TIMEOUT=$GATEWAY_READ_TIMEOUT: a whole number of ms or s, such as 60s"
    # The longest poll is 30 s (OrderReadRoutes.maximumWait).
    local milliseconds=${GATEWAY_READ_TIMEOUT%%[ms]*}
    if [[ $GATEWAY_READ_TIMEOUT != *ms ]]; then ((milliseconds *= 1000)); fi
    if ((milliseconds <= 30000)); then
        warn "GATEWAY_READ_TIMEOUT=$GATEWAY_READ_TIMEOUT is no longer than the longest poll, 30 s: the gateway gives up on polls that a server still answers"
    fi
}

# gateway_group NAME KEEPALIVE FAILURES [CELL]: one upstream group of the product servers.
gateway_group() {
    printf '    upstream %s {\n        zone %s 128k;\n%s\n        keepalive %s;\n        keepalive_requests 1000000;\n        keepalive_timeout 250ms;\n    }\n' \
        "$1" "$1" "$(gateway_upstream PRODUCT "$3" "${4-}")" "$2"
}

# A digit of an id, as it is or percent-encoded; and a whole number of those.
GATEWAY_DIGIT='(?:[0-9]|%3[0-9])'

# Sets what the template has for cells: nothing but one group where there is one. With several the path of a product by its id goes to the cell that has it; everything else
# of the product servers names a cell, as in /product-service/cells/1000000-/products.
gateway_cells() {
    local cell pair id pattern
    GATEWAY_GROUPS='' GATEWAY_CELL_OPTIONAL='' GATEWAY_CELLS='' GATEWAY_ROUTES='' GATEWAY_NO_CELL=''
    # shellcheck disable=SC2153
    if ((CELLS == 1)); then
        GATEWAY_GROUPS=$(gateway_group product 64 10)
        if [[ $GATEWAY_PUBLIC_STOCK == true ]]; then GATEWAY_GROUPS+=$'\n'$(gateway_group product_stock 128 10); fi
        return
    fi
    GATEWAY_CELL_OPTIONAL='(?:/cells/[0-9]+-[0-9]*)?'
    for pair in "${MOVED[@]}"; do
        id=${pair%:*} pattern=
        while [[ -n $id ]]; do
            pattern+="(?:${id:0:1}|%3${id:0:1})"
            id=${id:1}
        done
        GATEWAY_CELLS+="        \"~^/product-service/(?:v1/)?products/$pattern(?:[/?]|\$)\" ${pair#*:};"$'\n'
    done
    for ((cell = 1; cell <= CELLS; cell++)); do
        cell_range "$cell"
        GATEWAY_GROUPS+=$(gateway_group "product_$cell" 64 10 "$cell")$'\n'
        if [[ $GATEWAY_PUBLIC_STOCK == true ]]; then GATEWAY_GROUPS+=$(gateway_group "product_stock_$cell" 128 10 "$cell")$'\n'; fi
        GATEWAY_CELLS+="        \"~^/product-service/cells/$RANGE/\" $cell;"$'\n'
        if ((cell == CELLS)); then
            pattern="${GATEWAY_DIGIT}{7,}"
        elif ((cell == 1)); then
            pattern="${GATEWAY_DIGIT}{1,6}"
        else
            pattern="(?:$((cell - 1))|%3$((cell - 1)))${GATEWAY_DIGIT}{6}"
        fi
        GATEWAY_CELLS+="        \"~^/product-service/(?:v1/)?products/$pattern(?:[/?]|\$)\" $cell;"$'\n'
        GATEWAY_ROUTES+="        product:$cell product_$cell;"$'\n'"        product_stock:$cell product_stock_$cell;"$'\n'
    done
    GATEWAY_ROUTES+='        "product:" "";'$'\n''        "product_stock:" "";'
    # A path of the product servers that names no cell, neither by an id nor by its name, is not there for any method.
    GATEWAY_NO_CELL="        \"~^/product-service/(?:(?!cells/)(?!(?:v1/)?products/${GATEWAY_DIGIT}+(?:[/?]|\$))|cells/(?!$(gateway_cell_names)/))\" \"\";"
}

# The names of all cells, as alternatives of a pattern.
gateway_cell_names() {
    local cell names=
    for ((cell = 1; cell <= CELLS; cell++)); do
        cell_range "$cell"
        names+=${names:+|}$RANGE
    done
    printf '(?:%s)' "$names"
}

gateway_prepare() {
    local user='' limit='' stock='# ' token=''
    mkdir -p "$STACK_DIR/gateway/data"
    gateway_settings
    # Workers of a master that runs as root do not.
    if ((EUID == 0)); then user='user www-data;'; fi
    if ((GATEWAY_CONNECTIONS_PER_ADDRESS == 0)); then limit='# '; fi
    if [[ $GATEWAY_PUBLIC_STOCK == true ]]; then
        stock='' token=$GATEWAY_SERVICE_TOKEN
        warn_public_stock
    fi
    gateway_cells
    render nginx.conf "$STACK_DIR/gateway/nginx.conf" "USER=$user" "PORT=${PORTS[GATEWAY_PORT]}" "DIRECTORY=$STACK_DIR/gateway" \
        "DESCRIPTORS=$(descriptor_limit)" "LIMIT=$limit" "CONNECTIONS=$GATEWAY_CONNECTIONS_PER_ADDRESS" "READ_TIMEOUT=$GATEWAY_READ_TIMEOUT" \
        "PRODUCT_GROUPS=$GATEWAY_GROUPS" "CELL_OPTIONAL=$GATEWAY_CELL_OPTIONAL" "CELLS=$GATEWAY_CELLS" "ROUTES=$GATEWAY_ROUTES" \
        "NO_CELL=$GATEWAY_NO_CELL" "ORDER=$(gateway_upstream ORDER 10)" "ORDER_WAIT=$(gateway_upstream ORDER 0)" \
        "STOCK=$stock" "SERVICE_TOKEN=$token" \
        "SEGMENT=$GATEWAY_SEGMENT" "PRODUCT_ID=$GATEWAY_PRODUCT_ID" "END=$GATEWAY_END" "HOP=$GATEWAY_HOP" \
        "QUALITY_BEGIN=$GATEWAY_QUALITY_BEGIN" "QUALITY_END=$GATEWAY_QUALITY_END" "ONE=$GATEWAY_ONE" "NONE=$GATEWAY_NONE" "GREATER=$GATEWAY_GREATER" \
        "IPV6=$GATEWAY_IPV6"
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
