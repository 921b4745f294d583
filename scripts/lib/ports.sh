# shellcheck shell=bash
# The ports of a stack: chosen once, remembered in `ports`, one KEY=number a line.
#
# Invariant: two stacks of one user never hold the same port, also when they are first started at the same moment: a port is chosen under a
# lock, and a file named after it says which stack has it for as long as that stack remembers it. Chosen ports lie below the range that
# the kernel hands to outgoing connections, so none of those can be in the way later.

declare -A PORTS=() # what this stack remembers
REGISTRY=/tmp/stockgate-$UID

declare -Ar USUAL_PORTS=([GATEWAY_PORT]=8000 [PRODUCT_PORT]=8081 [PRODUCT_ADMIN_PORT]=9081 [ORDER_PORT]=8082 [ORDER_ADMIN_PORT]=9082)

# Every port that this stack needs, in order.
port_keys() {
    local n
    printf '%s\n' REDIS_PORT POSTGRES_PORT PGBOUNCER_PORT RABBITMQ_PORT EPMD_PORT RABBITMQ_DIST_PORT GATEWAY_PORT
    if [[ $REDIS_MODE == cluster ]]; then printf '%s\n' REDIS_BUS_PORT; fi
    for ((n = 2; n <= REDIS_SERVERS; n++)); do
        printf '%s\n' "REDIS_${n}_PORT"
        if [[ $REDIS_MODE == cluster ]]; then printf '%s\n' "REDIS_${n}_BUS_PORT"; fi
    done
    if [[ $REDIS_MODE == sentinel ]]; then printf '%s\n' SENTINEL_PORT SENTINEL_2_PORT SENTINEL_3_PORT; fi
    if ((POSTGRES_NODES > 1)); then printf '%s\n' POSTGRES_2_PORT; fi
    if managed; then printf '%s\n' POSTGRES_MANAGER_PORT POSTGRES_RAFT_PORT POSTGRES_2_MANAGER_PORT POSTGRES_2_RAFT_PORT RAFT_PORT; fi
    for ((n = 2; n <= RABBITMQ_NODES; n++)); do printf '%s\n' "RABBITMQ_${n}_PORT" "RABBITMQ_${n}_DIST_PORT"; done
    printf '%s\n' PRODUCT_PORT PRODUCT_ADMIN_PORT ORDER_PORT ORDER_ADMIN_PORT
    for ((n = 2; n <= INSTANCES; n++)); do
        printf '%s\n' "PRODUCT_${n}_PORT" "PRODUCT_${n}_ADMIN_PORT" "ORDER_${n}_PORT" "ORDER_${n}_ADMIN_PORT"
    done
    for ((n = INSTANCES + 1; n <= INSTANCES * CELLS; n++)); do
        if ((n > 1)); then printf '%s\n' "PRODUCT_${n}_PORT" "PRODUCT_${n}_ADMIN_PORT"; fi
    done
}

load_ports() {
    local key value
    PORTS=()
    [[ -r $STACK_DIR/ports ]] || return 0
    while IFS='=' read -r key value; do
        if [[ $value =~ ^[0-9]+$ ]]; then PORTS[$key]=$value; fi
    done <"$STACK_DIR/ports"
}

# Sets LISTENING to the ports that anything on this machine listens on.
listening_ports() {
    local port files=(/proc/net/tcp)
    declare -gA LISTENING=()
    if [[ -r /proc/net/tcp6 ]]; then files+=(/proc/net/tcp6); fi
    while read -r port; do
        LISTENING[$((16#$port))]=1
    done < <(awk '$4 == "0A" { n = split($2, part, ":"); print part[n] }' "${files[@]}")
}

listening_inodes() {
    awk -v port="$(printf '%04X' "$1")" '$4 == "0A" && $2 ~ ":" port "$" { print $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null || true
}

# Who listens on port $1, as far as this user may know. For messages.
port_owner() {
    local inode descriptor pid
    for inode in $(listening_inodes "$1"); do
        for descriptor in /proc/[0-9]*/fd/*; do
            if [[ $(readlink "$descriptor" 2>/dev/null) == "socket:[$inode]" ]]; then
                pid=${descriptor#/proc/}
                pid=${pid%%/*}
                printf 'process %s, %s' "$pid" "$(<"/proc/$pid/comm")"
                return
            fi
        done
    done
    printf 'another process'
}

# Whether port $1 is promised to another stack that still remembers it.
reserved() {
    local other
    [[ -r $REGISTRY/$1 ]] || return 1
    other=$(<"$REGISTRY/$1")
    [[ $other != "$STACK_DIR" && -r $other/ports ]] && grep -q "=$1\$" "$other/ports"
}

# A free port below the ephemeral range. Sets PORT. Gives up after one turn through the range.
free_port() {
    local low high tries span
    read -r high _ </proc/sys/net/ipv4/ip_local_port_range || high=32768
    if ((high < 12000)); then high=32768; fi
    low=$((high - 10000)) span=10000
    PORT=$((low + (RANDOM * 32768 + RANDOM) % span))
    for ((tries = 0; tries < span; tries++)); do
        if [[ -z ${LISTENING[$PORT]-} && -z ${USED[$PORT]-} ]] && ! reserved "$PORT"; then return 0; fi
        PORT=$((low + (PORT - low + 1) % span))
    done
    die "no free port between $low and $((high - 1))"
}

# settle_ports [check]: makes PORTS complete: what is set from outside, else what is remembered, else the usual, else any free one. With `check`,
# and as long as nothing of this stack runs, a remembered port that somebody else took meanwhile is replaced.
settle_ports() {
    local check=${1-} key value usual running=
    local -A given=() USED=()
    local keys=() changed=
    mapfile -t keys < <(port_keys)
    load_ports
    if any_running; then running=1; fi
    for key in "${keys[@]}"; do
        value=${!key-}
        [[ -n $value ]] || continue
        if ! [[ $value =~ ^[1-9][0-9]{0,4}$ ]] || ((value > 65535)); then usage_error "$key=$value is no port"; fi
        if [[ -n ${PORTS[$key]-} && ${PORTS[$key]} != "$value" ]]; then
            if [[ -n $running ]]; then
                usage_error "$key=$value, but this stack runs with $key=${PORTS[$key]}: stop it first, or unset $key"
            fi
            unset "PORTS[$key]"
        fi
        given[$key]=$value
    done
    for key in "${keys[@]}"; do
        if [[ -z ${PORTS[$key]-} ]]; then changed=1; fi
    done
    if [[ -z $changed && (-z $check || -n $running) ]]; then return 0; fi

    if ! { mkdir -m 700 "$REGISTRY" 2>/dev/null || [[ -d $REGISTRY && -O $REGISTRY && ! -L $REGISTRY ]]; }; then
        die "$REGISTRY is not a folder of this user"
    fi
    exec 8>"$REGISTRY/lock"
    flock -w 20 8 || die "another stack has been choosing its ports for 20 seconds: $REGISTRY/lock"
    listening_ports
    for key in "${!given[@]}"; do
        value=${given[$key]}
        if [[ -n ${USED[$value]-} ]]; then usage_error "$key and ${USED[$value]} are both $value"; fi
        if [[ -z ${PORTS[$key]-} ]] && reserved "$value"; then warn "$key=$value also belongs to the stack in $(<"$REGISTRY/$value")"; fi
        PORTS[$key]=$value
        USED[$value]=$key
    done
    for key in "${keys[@]}"; do
        value=${PORTS[$key]-}
        if [[ -n $value && -z ${given[$key]-} ]]; then
            if [[ -n ${USED[$value]-} ]] || { [[ -n $check && -z $running && -n ${LISTENING[$value]-} ]]; }; then
                warn "$key: port $value has been taken meanwhile ($(port_owner "$value")), choosing another"
                rm -f "${REGISTRY:?}/$value"
                unset "PORTS[$key]"
            else
                USED[$value]=$key
            fi
        fi
    done
    for key in "${keys[@]}"; do
        [[ -z ${PORTS[$key]-} ]] || continue
        usual=${USUAL_PORTS[$key]-}
        if [[ -n $usual && ${STACK_PORTS-} != any && -z ${LISTENING[$usual]-} && -z ${USED[$usual]-} ]] && ! reserved "$usual"; then
            PORT=$usual
        else
            free_port
            if [[ -n $usual && ${STACK_PORTS-} != any ]]; then warn "$key: $usual is taken, using $PORT"; fi
        fi
        PORTS[$key]=$PORT
        USED[$PORT]=$key
    done
    for key in "${!PORTS[@]}"; do printf '%s=%s\n' "$key" "${PORTS[$key]}"; done | sort >"$STACK_DIR/ports.new"
    mv -f "$STACK_DIR/ports.new" "$STACK_DIR/ports"
    for value in "${PORTS[@]}"; do printf '%s' "$STACK_DIR" >"$REGISTRY/$value"; done
    exec 8>&-
}

# Gives the ports of this stack back.
release_ports() {
    local port
    load_ports
    for port in "${PORTS[@]}"; do
        if [[ -r $REGISTRY/$port && $(<"$REGISTRY/$port") == "$STACK_DIR" ]]; then rm -f "${REGISTRY:?}/$port"; fi
    done
}
