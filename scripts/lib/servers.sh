# shellcheck shell=bash
# The project's own servers: product-1 … and order-1 …, one process each.

# http_status PORT PATH STATUS: whether a GET is answered with this status within two seconds.
http_status() {
    local line=
    { exec 7<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$2" "$1" >&7 2>/dev/null || true
    read -r -t 2 -u 7 line || true
    exec 7>&-
    [[ $line == "HTTP/1."[01]" $3"* ]]
}

# The settings of server $1, without what belongs to the other.
server_environment() {
    local n=${1##*-} infix='' line key
    kind_of "$1"
    if ((n > 1)); then infix=${n}_; fi
    while IFS= read -r line; do
        key=${line%%=*}
        case $KIND:$key in
            product:ORDER_* | order:REDIS_URL | order:PRODUCT_DATABASE_URL | *:CELL_*) unset "$key" ;;
            *) export "${line?}" ;;
        esac
    done < <(settings)
    if [[ $KIND == product ]] && ((CELLS > 1)); then
        cell_of_server "$n"
        if ((CELL > 1)); then
            export REDIS_URL=redis://127.0.0.1:${PORTS[REDIS_${CELL}_PORT]} PRODUCT_DATABASE_URL=${PRODUCT_DATABASE_URL/%stockgate_product/stockgate_product_$CELL}
        fi
        cell_ids "$CELL" product
        export PRODUCT_IDS=$IDS
    fi
    # A stack that has never had a broker sells without one: an address where nobody will ever listen would make orders wait for it.
    [[ -d $STACK_DIR/rabbitmq ]] || unset AMQP_URL
    # A proxy between the product servers and the stack's Redis, for tests.
    if [[ $KIND == product && -n ${PRODUCT_REDIS_URL-} ]]; then export REDIS_URL=$PRODUCT_REDIS_URL; fi
    if [[ -d $STACK_DIR/pgbouncer ]]; then
        export DATABASE_POOLER=transaction
        if [[ $KIND == product ]]; then
            PRODUCT_DATABASE_URL=$(through_pgbouncer "$PRODUCT_DATABASE_URL")
        else
            ORDER_DATABASE_URL=$(through_pgbouncer "$ORDER_DATABASE_URL")
        fi
    fi
    unset INSTANCES CELLS MOVED_PRODUCTS PRODUCT_REDIS_URL GATEWAY_PUBLIC_STOCK
    # Each has the token that it shows or those that it takes, also where the caller has set both.
    if [[ $KIND == product ]]; then unset PRODUCT_SERVICE_TOKEN; else unset SERVICE_TOKENS; fi
    export "${KIND^^}_PORT=${PORTS[${KIND^^}_${infix}PORT]}"
    export "${KIND^^}_ADMIN_PORT=${PORTS[${KIND^^}_${infix}ADMIN_PORT]}"
}

server_ready() {
    kind_of "$1"
    local keys
    read -ra keys <<<"$(listens_on "$1")"
    http_status "${PORTS[${keys[0]}]}" /readyz 200
}

product_prepare() { :; }
product_launch() { launch "$1" pid server_environment "$STOCKGATE_BIN_DIR/product-server"; }
product_ready() { server_ready "$1"; }
order_prepare() { :; }
order_launch() { launch "$1" pid server_environment "$STOCKGATE_BIN_DIR/order-server"; }
order_ready() { server_ready "$1"; }
product_binaries() {
    [[ -x $STOCKGATE_BIN_DIR/product-server ]] || die "$1: $STOCKGATE_BIN_DIR/product-server is not there: build it (make build), or set STOCKGATE_BIN_DIR"
}
order_binaries() {
    [[ -x $STOCKGATE_BIN_DIR/order-server ]] || die "$1: $STOCKGATE_BIN_DIR/order-server is not there: build it (make build), or set STOCKGATE_BIN_DIR"
}
