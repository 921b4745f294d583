# shellcheck shell=bash
# The ledger: one server, or two (postgres, postgres-2), of which one is the primary and the other its synchronous standby. `postgres-primary` names the primary; without that
# file it is the first. In a stack that fails over by itself Patroni runs both, and decides all of this (`patroni.sh`). PostgreSQL does not run as root: started by root, it runs as
# the user postgres, and where that user cannot enter the stack's folder (a checkout under /root), its files are in /var/tmp, behind a link.
# Layout: postgres/server -> data, socket, postgresql.conf, pg_hba.conf, all owned by the user it runs as.
#
# Invariant: a server that is not the primary is a standby of the primary, or is made anew from it before it starts. So two of them never take writes at the same time.

POSTGRES_AS=() # what to put before a command so that it runs as PostgreSQL's user
if ((EUID == 0)); then
    POSTGRES_AS=(setpriv --reuid=postgres --regid=postgres --init-groups --)
fi

# Sets POSTGRES_BIN to the newest installed version.
postgres_binaries() {
    local candidates
    mapfile -t candidates < <(compgen -G '/usr/lib/postgresql/*/bin/postgres' | sort -V)
    ((${#candidates[@]})) || die "postgresql is not installed: scripts/stack install"
    POSTGRES_BIN=${candidates[-1]%/postgres}
}

# Sets PRIMARY to the name of the server that takes writes.
postgres_primary() {
    if managed; then
        patroni_primary
        return
    fi
    PRIMARY=postgres
    if [[ -r $STACK_DIR/postgres-primary ]]; then PRIMARY=$(<"$STACK_DIR/postgres-primary"); fi
}

# Sets POSTGRES_PORT_OF to the port of server $1.
postgres_port() {
    if [[ $1 == postgres ]]; then POSTGRES_PORT_OF=${PORTS[POSTGRES_PORT]}; else POSTGRES_PORT_OF=${PORTS[POSTGRES_${1#*-}_PORT]}; fi
}

# Whether server $1 has data of its own to start with: the primary, or a standby of it.
postgres_has_data() {
    if managed; then
        [[ $1 == postgres || -d $STACK_DIR/$1/server/data ]]
        return
    fi
    postgres_primary
    [[ $1 == "$PRIMARY" || (-r $STACK_DIR/$1/standby-of && $(<"$STACK_DIR/$1/standby-of") == "$PRIMARY") ]]
}

# Sets POSTGRES_SOCKET, of server $1. The path of a Unix socket has at most 107 bytes; in a deep folder it gets a short one in /tmp.
postgres_socket() {
    local suffix=/.s.PGSQL.65535 home
    home=$(readlink -f "$STACK_DIR/$1/server")
    POSTGRES_SOCKET=$home/socket
    if ((${#POSTGRES_SOCKET} + ${#suffix} > 107)); then
        if ! [[ -r $STACK_DIR/$1/socket-folder ]]; then
            mktemp -d /tmp/stockgate-socket.XXXXXX >"$STACK_DIR/$1/socket-folder"
        fi
        POSTGRES_SOCKET=$(<"$STACK_DIR/$1/socket-folder")
    fi
}

# Sets POSTGRES_HOME to the folder of server $1, which belongs to the user that PostgreSQL runs as.
postgres_home() {
    local root=$STACK_DIR/$1 home
    umask 077
    if [[ ! -e $root/server ]]; then
        rm -f "$root/server" # a link into /var/tmp whose target was cleared away
        mkdir "$root/server"
        if ((EUID == 0)); then
            chown postgres: "$root/server"
            if ! (cd / && "${POSTGRES_AS[@]}" test -w "$root/server"); then
                rmdir "$root/server"
                home=$(mktemp -d /var/tmp/stockgate-postgres.XXXXXX)
                chown postgres: "$home"
                ln -s "$home" "$root/server"
            fi
        fi
    fi
    umask 022
    POSTGRES_HOME=$(readlink -f "$root/server")
}

postgres_prepare() {
    local root=$STACK_DIR/$1 home user
    postgres_port "$1"
    postgres_primary
    postgres_binaries
    postgres_home "$1"
    home=$POSTGRES_HOME
    umask 077
    if ((EUID == 0)); then user=postgres; else user=$(id -un); fi
    postgres_socket "$1"
    mkdir -p "$POSTGRES_SOCKET"
    render postgresql.conf "$home/postgresql.conf" "PORT=$POSTGRES_PORT_OF" "HOME=$home" "SOCKET=$POSTGRES_SOCKET"
    # A standby that was away for a while finds what it missed.
    if ((POSTGRES_NODES > 1)); then printf 'wal_keep_size = 512MB\n' >>"$home/postgresql.conf"; fi
    render pg_hba.conf "$home/pg_hba.conf" "USER=$user"
    if ((EUID == 0)); then chown postgres: "$POSTGRES_SOCKET" "$home/postgresql.conf" "$home/pg_hba.conf"; fi
    if managed; then
        patroni_prepare "$1" "$home" "$user"
        umask 022
        return
    fi
    if [[ $1 != "$PRIMARY" ]]; then
        postgres_prepare_standby "$1" "$home" "$user"
        umask 022
        return
    fi
    if [[ ! -d $home/data ]]; then
        # Made beside and moved: a run that is killed here leaves no half cluster. The cluster is empty, so that
        # nothing is lost if the machine goes down before its files reach the disk; all that comes later is synced.
        rm -rf "$home/data.new"
        rm -f "$root/databases-made"
        (cd / && "${POSTGRES_AS[@]}" "$POSTGRES_BIN/initdb" -D "$home/data.new" --no-sync --encoding=UTF8 --locale=C.UTF-8 \
            --username="$user" --auth-local=peer --auth-host=scram-sha-256) >>"$root/log" 2>&1 ||
            { show_log postgres; die "postgres: initdb failed"; }
        mv "$home/data.new" "$home/data"
    fi
    umask 022
}

# Makes the standby $1, in $2, as the operating system's user $3, from the primary, unless it is one already; and says where the primary is now.
postgres_prepare_standby() {
    local socket primary
    socket=$POSTGRES_SOCKET
    postgres_port "$PRIMARY"
    postgres_socket "$PRIMARY"
    primary="host=$POSTGRES_SOCKET port=$POSTGRES_PORT_OF user=$3"
    if ! postgres_has_data "$1"; then
        live "$PRIMARY" || die "$1: it is made from $PRIMARY, which does not run: start $PRIMARY first"
        rm -rf "$2/data.new"
        (cd / && "${POSTGRES_AS[@]}" "$POSTGRES_BIN/pg_basebackup" -D "$2/data.new" -d "$primary" -X stream -c fast --no-sync) >>"$STACK_DIR/$1/log" 2>&1 ||
            { show_log "$1"; die "$1: pg_basebackup failed"; }
        # Whom the primary waits for is its own affair.
        sed -i '/^synchronous_standby_names/d' "$2/data.new/postgresql.auto.conf"
        : >"$2/data.new/standby.signal"
        if ((EUID == 0)); then chown postgres: "$2/data.new/standby.signal" "$2/data.new/postgresql.auto.conf"; fi
        rm -rf "$2/data"
        mv "$2/data.new" "$2/data"
        printf '%s\n' "$PRIMARY" >"$STACK_DIR/$1/standby-of"
    fi
    printf "primary_conninfo = '%s application_name=%s'\n" "$primary" "${1//-/_}" >>"$2/postgresql.conf"
    POSTGRES_SOCKET=$socket
}

# PostgreSQL must be able to enter the folder it is started in.
postgres_enter() { cd "$STACK_DIR/$1/server" && cd "$(pwd -P)" || exit; }

postgres_launch() {
    local home
    home=$(readlink -f "$STACK_DIR/$1/server")
    # No process of this cluster lives: `sweep` has seen to that. The lock files of one that was killed are in the way where the
    # number in them still is in the process table, as a zombie that nobody reaps or as somebody else's.
    rm -f "$home/data/postmaster.pid" "$POSTGRES_SOCKET"/.s.PGSQL.*
    if managed; then
        patroni_launch "$1"
        return
    fi
    launch "$1" pid postgres_enter "${POSTGRES_AS[@]}" "$POSTGRES_BIN/postgres" -D "$home/data" -c "config_file=$home/postgresql.conf"
}

postgres_ready() {
    if managed; then
        patroni_ready "$1"
        return
    fi
    postgres_port "$1"
    "$POSTGRES_BIN/pg_isready" -q -t 1 -h 127.0.0.1 -p "$POSTGRES_PORT_OF" || return 1
    postgres_primary
    if [[ $1 == "$PRIMARY" ]]; then
        [[ -e $STACK_DIR/$1/databases-made ]] || postgres_make_databases "$1"
    else
        postgres_follow "$1"
    fi
}

# Runs the SQL of its input at server $1 as its owner, through the Unix socket.
postgres_sql() {
    postgres_port "$1"
    postgres_socket "$1"
    (cd / && "${POSTGRES_AS[@]}" "$POSTGRES_BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$POSTGRES_SOCKET" -p "$POSTGRES_PORT_OF" -d postgres)
}

# Has the primary wait for standby $1 from now on, once that follows it: a commit is answered when both have it on disk.
postgres_follow() {
    local name=${1//-/_} found
    live "$PRIMARY" || return 1
    found=$(printf "SELECT 1 FROM pg_stat_replication WHERE application_name = '%s' AND state = 'streaming';\n" "$name" | postgres_sql "$PRIMARY" 2>>"$STACK_DIR/$1/log") || return 1
    [[ $found == 1 ]] || return 1
    printf "ALTER SYSTEM SET synchronous_standby_names = '%s';\nSELECT pg_reload_conf();\n" "$name" | postgres_sql "$PRIMARY" >>"$STACK_DIR/$1/log" 2>&1
}

# Makes standby $1 the primary. The primary before is ended first, so that it takes no more writes, and becomes a standby at its next start.
postgres_promote() {
    local before
    postgres_primary
    before=$PRIMARY
    postgres_binaries
    [[ $1 != "$before" ]] || usage_error "$1 is the primary already"
    [[ -r $STACK_DIR/$1/standby-of ]] || usage_error "$1 is no standby: start it first"
    live "$1" || die "$1 does not run"
    if live "$before"; then kill_one "$before"; fi
    [[ $(printf 'SELECT pg_promote(true, 60);\n' | postgres_sql "$1") == t ]] || die "$1: could not be promoted"
    printf '%s\n' "$1" >"$STACK_DIR/postgres-primary"
    rm -f "$STACK_DIR/$1/standby-of" "$STACK_DIR/$before/standby-of"
    : >"$STACK_DIR/$1/databases-made"
    say "$1 is the primary"
}

# Two databases, each with an owner of its own, and one more for each further cell; may be run again after it was interrupted.
postgres_make_databases() {
    local name password cell
    postgres_port "$1"
    postgres_socket "$1"
    for name in product order; do
        if [[ $name == product ]]; then password=$PRODUCT_DATABASE_PASSWORD; else password=$ORDER_DATABASE_PASSWORD; fi
        cat <<SQL
SET log_min_error_statement = panic; -- the next statement holds a password
SELECT 'CREATE ROLE stockgate_$name LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stockgate_$name')
\gexec
ALTER ROLE stockgate_$name PASSWORD '$password';
SELECT 'CREATE DATABASE stockgate_$name OWNER stockgate_$name' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'stockgate_$name')
\gexec
REVOKE ALL ON DATABASE stockgate_$name FROM PUBLIC;
SQL
        if [[ $name == order ]]; then continue; fi
        for ((cell = 2; cell <= CELLS; cell++)); do
            cat <<SQL
SELECT 'CREATE DATABASE stockgate_product_$cell OWNER stockgate_product' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'stockgate_product_$cell')
\gexec
REVOKE ALL ON DATABASE stockgate_product_$cell FROM PUBLIC;
SQL
        done
    done | (cd / && "${POSTGRES_AS[@]}" "$POSTGRES_BIN/psql" -X -q -v ON_ERROR_STOP=1 -h "$POSTGRES_SOCKET" -p "$POSTGRES_PORT_OF" -d postgres) \
        >>"$STACK_DIR/$1/log" 2>&1 || { show_log "$1"; die "$1: the databases could not be made"; }
    if managed; then : >"$STACK_DIR/postgres/databases-made"; else : >"$STACK_DIR/$1/databases-made"; fi
}

# After a stop: the socket's folder outside the stack, if there was one.
postgres_cleanup() {
    if [[ -r $STACK_DIR/$1/socket-folder ]]; then
        rm -rf "$(<"$STACK_DIR/$1/socket-folder")"
        rm -f "$STACK_DIR/$1/socket-folder"
    fi
}

# Before the stack is removed: the files outside of it, if there are any.
postgres_destroy() {
    local home name
    for name in postgres postgres-2 raft; do
        [[ -L $STACK_DIR/$name/server ]] || continue
        home=$(readlink -f "$STACK_DIR/$name/server")
        if [[ $home == /var/tmp/stockgate-postgres.* ]]; then rm -rf "$home"; fi
    done
}
