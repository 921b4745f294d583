# shellcheck shell=bash
# The ledger. PostgreSQL does not run as root: started by root, it runs as the user postgres, and where that user cannot
# enter the stack's folder (a checkout under /root), its files are in /var/tmp, behind a link.
# Layout: postgres/server -> data, socket, postgresql.conf, pg_hba.conf, all owned by the user it runs as.

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

# Sets POSTGRES_SOCKET. The path of a Unix socket has at most 107 bytes; in a deep folder it gets a short one in /tmp.
postgres_socket() {
    local suffix=/.s.PGSQL.65535 home
    home=$(readlink -f "$STACK_DIR/postgres/server")
    POSTGRES_SOCKET=$home/socket
    if ((${#POSTGRES_SOCKET} + ${#suffix} > 107)); then
        if ! [[ -r $STACK_DIR/postgres/socket-folder ]]; then
            mktemp -d /tmp/stockgate-socket.XXXXXX >"$STACK_DIR/postgres/socket-folder"
        fi
        POSTGRES_SOCKET=$(<"$STACK_DIR/postgres/socket-folder")
    fi
}

postgres_prepare() {
    local root=$STACK_DIR/postgres home user
    postgres_binaries
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
    home=$(readlink -f "$root/server")
    if ((EUID == 0)); then user=postgres; else user=$(id -un); fi
    postgres_socket
    mkdir -p "$POSTGRES_SOCKET"
    render postgresql.conf "$home/postgresql.conf" "PORT=${PORTS[POSTGRES_PORT]}" "HOME=$home" "SOCKET=$POSTGRES_SOCKET"
    render pg_hba.conf "$home/pg_hba.conf" "USER=$user"
    if ((EUID == 0)); then chown postgres: "$POSTGRES_SOCKET" "$home/postgresql.conf" "$home/pg_hba.conf"; fi
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

# PostgreSQL must be able to enter the folder it is started in.
postgres_enter() { cd "$STACK_DIR/postgres/server" && cd "$(pwd -P)" || exit; }

postgres_launch() {
    local home
    home=$(readlink -f "$STACK_DIR/postgres/server")
    # No process of this cluster lives: `sweep` has seen to that. The lock files of one that was killed are in the way where the
    # number in them still is in the process table, as a zombie that nobody reaps or as somebody else's.
    rm -f "$home/data/postmaster.pid" "$POSTGRES_SOCKET"/.s.PGSQL.*
    launch postgres pid postgres_enter "${POSTGRES_AS[@]}" "$POSTGRES_BIN/postgres" -D "$home/data" -c "config_file=$home/postgresql.conf"
}

postgres_ready() {
    "$POSTGRES_BIN/pg_isready" -q -t 1 -h 127.0.0.1 -p "${PORTS[POSTGRES_PORT]}" || return 1
    [[ -e $STACK_DIR/postgres/databases-made ]] || postgres_make_databases
}

# Two databases, each with an owner of its own; may be run again after it was interrupted.
postgres_make_databases() {
    local name password
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
    done | (cd / && "${POSTGRES_AS[@]}" "$POSTGRES_BIN/psql" -X -q -v ON_ERROR_STOP=1 -h "$POSTGRES_SOCKET" -p "${PORTS[POSTGRES_PORT]}" -d postgres) \
        >>"$STACK_DIR/postgres/log" 2>&1 || { show_log postgres; die "postgres: the databases could not be made"; }
    : >"$STACK_DIR/postgres/databases-made"
}

# After a stop: the socket's folder outside the stack, if there was one.
postgres_cleanup() {
    if [[ -r $STACK_DIR/postgres/socket-folder ]]; then
        rm -rf "$(<"$STACK_DIR/postgres/socket-folder")"
        rm -f "$STACK_DIR/postgres/socket-folder"
    fi
}

# Before the stack is removed: the files outside of it, if there are any.
postgres_destroy() {
    local home
    [[ -L $STACK_DIR/postgres/server ]] || return 0
    home=$(readlink -f "$STACK_DIR/postgres/server")
    if [[ $home == /var/tmp/stockgate-postgres.* ]]; then rm -rf "$home"; fi
}
