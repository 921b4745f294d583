# shellcheck shell=bash
# What `demo`, `up`, `sale`, `test` and `bench` share. Sourced from the repository's root.

heading() { printf '\n== %s\n' "$*"; }

# Extra flags for every swift command. Words, so that SWIFT_FLAGS="-c release -j 2" works.
read -ra SWIFT_OPTIONS <<<"${SWIFT_FLAGS-}"

# build_release [PRODUCT …]: all of the package, or these products.
# shellcheck disable=SC2120
build_release() {
    local product
    heading "build (release)"
    if (($# == 0)); then
        swift build -c release "${SWIFT_OPTIONS[@]}"
    else
        for product in "$@"; do swift build -c release --product "$product" "${SWIFT_OPTIONS[@]}"; done
    fi
    STOCKGATE_BIN_DIR=$(swift build -c release --show-bin-path "${SWIFT_OPTIONS[@]}")
    export STOCKGATE_BIN_DIR
}

# Forgets a stack that the caller's shell knows: its ports are not for the one that is started here.
forget_stack() {
    unset STACK_DIR STACK_PORTS TOPOLOGY CELLS MOVED_PRODUCTS RABBITMQ_NODES POSTGRES_NODES REDIS_PORT POSTGRES_PORT PGBOUNCER_PORT RABBITMQ_PORT EPMD_PORT RABBITMQ_DIST_PORT GATEWAY_PORT
    unset SENTINEL_PORT SENTINEL_2_PORT SENTINEL_3_PORT PRODUCT_PORT PRODUCT_ADMIN_PORT ORDER_PORT ORDER_ADMIN_PORT
    unset GATEWAY_PUBLIC_STOCK SERVICE_TOKENS PRODUCT_SERVICE_TOKEN
}

# Reads the settings of the stack into the environment.
load_settings() {
    local settings
    settings=$(scripts/stack env)
    set -a
    eval "$settings"
    set +a
}

# Runs a command so that Ctrl-C and TERM reach it and this script's own traps run at once. Its exit status is the result.
CHILD=
# Other processes that Ctrl-C and TERM end.
BESIDE=()
interruptible() {
    "$@" &
    CHILD=$!
    wait "$CHILD"
}
interrupt() {
    local pid
    for pid in $CHILD "${BESIDE[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    exit "$1"
}
trap 'interrupt 130' INT
trap 'interrupt 143' TERM
