# shellcheck shell=bash
# A pooler before PostgreSQL, which no stack has unless `start pgbouncer` asks for it. From then on the product and order servers of the stack reach their databases
# through it; everybody else is told PostgreSQL's own address.

pgbouncer_binaries() { type -P pgbouncer >/dev/null || die "pgbouncer is not installed: apt-get install pgbouncer"; }

pgbouncer_prepare() {
    local root=$STACK_DIR/pgbouncer
    render pgbouncer.ini "$root/pgbouncer.ini" "PORT=${PORTS[PGBOUNCER_PORT]}" "POSTGRES_PORT=${PORTS[POSTGRES_PORT]}" "HOME=$root"
    # It does not run as root; it reads its files before it becomes another user.
    if ((EUID == 0)); then printf 'user = postgres\n' >>"$root/pgbouncer.ini"; fi
    (
        umask 077
        printf '"stockgate_product" "%s"\n"stockgate_order" "%s"\n' "$PRODUCT_DATABASE_PASSWORD" "$ORDER_DATABASE_PASSWORD" >"$root/users"
    )
}

pgbouncer_launch() { launch pgbouncer pid : pgbouncer "$STACK_DIR/pgbouncer/pgbouncer.ini"; }

pgbouncer_ready() {
    { exec 7<>"/dev/tcp/127.0.0.1/${PORTS[PGBOUNCER_PORT]}"; } 2>/dev/null || return 1
    exec 7>&-
}

# The address $1 with the pooler's port in place of PostgreSQL's.
through_pgbouncer() { printf '%s' "${1/":${PORTS[POSTGRES_PORT]}/"/":${PORTS[PGBOUNCER_PORT]}/"}"; }
