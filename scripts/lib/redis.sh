# shellcheck shell=bash
# The gate. It keeps nothing on disk: what it holds can always be made again from the ledger, and a lost gate is what the project is about.

redis_prepare() {
    type -P redis-server >/dev/null || die "redis-server is not installed: scripts/stack install"
    mkdir -p "$STACK_DIR/redis/data"
    render redis.conf "$STACK_DIR/redis/redis.conf" "PORT=${PORTS[REDIS_PORT]}" "DATA=$STACK_DIR/redis/data"
}

redis_launch() { launch redis pid : redis-server "$STACK_DIR/redis/redis.conf"; }

# True when Redis answers PING. A Redis that still loads answers with an error.
redis_ready() {
    local answer=
    { exec 7<>"/dev/tcp/127.0.0.1/${PORTS[REDIS_PORT]}"; } 2>/dev/null || return 1
    printf 'PING\r\n' >&7
    read -r -t 1 -u 7 answer || true
    exec 7>&-
    [[ $answer == +PONG* ]]
}
