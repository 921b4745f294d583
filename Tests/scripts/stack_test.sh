#!/usr/bin/env bash
# scripts/stack against real servers, in folders and on ports of its own. Two stand-ins take the place of the project's servers.
# Ends with `N passed, N failed`; exit status 1 when something failed.
# shellcheck disable=SC2016 # single quotes where another shell is to expand
set -uo pipefail

REPOSITORY=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
stack=$REPOSITORY/scripts/stack
PATH=$PATH:/usr/sbin:/sbin
unset STACK_DIR STACK_PORTS STACK_SERVICES INSTANCES TOPOLOGY CELLS MOVED_PRODUCTS RABBITMQ_NODES POSTGRES_NODES "${!PG@}"
unset GATEWAY_PUBLIC_STOCK GATEWAY_CONNECTIONS_PER_ADDRESS GATEWAY_READ_TIMEOUT SERVICE_TOKENS PRODUCT_SERVICE_TOKEN
unset REDIS_PORT SENTINEL_PORT POSTGRES_PORT RABBITMQ_PORT EPMD_PORT RABBITMQ_DIST_PORT GATEWAY_PORT PRODUCT_PORT PRODUCT_ADMIN_PORT ORDER_PORT ORDER_ADMIN_PORT
export STACK_PORTS=any

work=$(mktemp -d)
chmod 755 "$work"
first=$work/first
# Nobody but this user may enter the second one's parent, and its path is too long for a socket.
second=$work/private/a-folder-with-a-rather-long-name-in-which-no-unix-socket-can-have-its-place-because-of-its-length/second
mkdir -p "$(dirname "$second")"
chmod 700 "$work/private"
helpers=()

finish() {
    trap '' INT TERM
    local directory
    for directory in "$first" "$second" "$work/third"; do STACK_DIR=$directory "$stack" destroy >/dev/null 2>&1; done
    if ((${#helpers[@]})); then kill -9 "${helpers[@]}" 2>/dev/null; fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck source=../Tests/scripts/lib/verdicts.sh
source "$REPOSITORY/Tests/scripts/lib/verdicts.sh"
one() { STACK_DIR=$first "$stack" "$@"; }
two() { STACK_DIR=$second "$stack" "$@"; }
pid_of() { cut -d' ' -f1 "$first/$1/pid"; }
setting() { one env | sed -n "s/^$1=//p"; }
port() { sed -n "s/^$1=//p" "${2:-$first}/ports"; }

# Running, and no zombie.
alive() {
    local line
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    line=${line##*) }
    [[ $line != [ZX]* ]]
}
dead() { ! alive "$1"; }
all_dead() {
    local pid
    for pid in "$@"; do dead "$pid" || { cat "/proc/$pid/stat"; return 1; }; done
}
# fails_with STATUS TEXT COMMAND…: that exit status, and the text in what it says.
fails_with() {
    local status=$1 text=$2 output code
    shift 2
    output=$("$@" 2>&1)
    code=$?
    printf 'exit status %s: %s\n' "$code" "$output"
    ((code == status)) && [[ $output == *"$text"* ]]
}
says() { # TEXT COMMAND…
    local text=$1 output
    shift
    output=$("$@" 2>&1)
    printf '%s\n' "$output"
    [[ $output == *"$text"* ]]
}
status_of() { one status "$1" | awk 'NR == 2 { print $2 }'; }
# Tries for up to a minute, however long each try takes.
soon() {
    local end=$((SECONDS + 60))
    while ((SECONDS < end)); do
        if "$@"; then return 0; fi
        sleep 0.05
    done
    return 1
}
redis_says() {
    local answer
    exec 5<>"/dev/tcp/127.0.0.1/$(port REDIS_PORT)" || return 1
    printf '%s\r\n' "$1" >&5
    read -r -t 20 -u 5 answer
    exec 5>&-
    [[ ${answer%$'\r'} == "$2" ]]
}
query() { psql -X -A -t -c "$2" "$(setting "$1")"; }
code() { curl -s -o /dev/null -w '%{http_code}' --max-time 60 "$@"; }

# A server that answers every request with what it saw. ORDER_FAILS makes it give up at its start.
mkdir "$work/bin"
cat >"$work/bin/product-server" <<'PERL'
#!/usr/bin/perl
use strict; use IO::Socket::INET;
my ($kind) = $0 =~ m{(product|order)-server$};
if ($ENV{STAND_IN_FAILS}) { print STDERR "cannot reach the database\n"; exit 3 }
my $port = $ENV{uc($kind) . '_PORT'};
my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 128, ReuseAddr => 1) or die "bind: $!";
while (my $client = $socket->accept) {
    my ($line, $name, $length, $seen, $token) = (scalar <$client>, '', 0, '', '');
    while (my $header = <$client>) {
        last if $header =~ /^\r?\n$/;
        $name = $1 if $header =~ /^x-request-id: (.*?)\r/i;
        $length = $1 if $header =~ /^content-length: (\d+)/i;
        $seen = $1 if $header =~ /^traceparent: (.*?)\r/i;
        $token = $1 if $header =~ /^authorization: (.*?)\r/i;
    }
    read $client, my $body, $length if $length;
    my ($path) = $line =~ /^\S+ (\S+)/;
    my $status = $path =~ m{/refuse/} ? '409 Conflict' : '200 OK';
    my $text = "$kind $port $path $name $seen $length";
    # What it was started with, and what the caller shows.
    $text = join ' ', $token, map { $_ . '=' . ($ENV{$_} // '') } qw(SERVICE_TOKENS PRODUCT_SERVICE_TOKEN) if $path =~ m{/tokens(/|$)};
    my $location = $path =~ m{^/moved/} ? "Location: /orders/7\r\n" : '';
    print $client "HTTP/1.1 $status\r\nContent-Length: " . length($text) . "\r\n${location}Connection: close\r\n\r\n$text";
    close $client;
}
PERL
sed 's/x/x/' "$work/bin/product-server" >"$work/bin/order-server"
chmod 755 "$work/bin"/*
export STOCKGATE_BIN_DIR=$work/bin

# MARK: Start

(one start redis postgres gateway >"$work/first.out" 2>&1) &
starting=$!
two start redis postgres gateway >"$work/second.out" 2>&1
second_status=$?
wait "$starting"
first_status=$?
check "two stacks start at the same moment" is "$first_status$second_status" 00
sed 's/^/        /' "$work/first.out" "$work/second.out"
check "they share no port" is "$(cat "$first/ports" "$second/ports" | cut -d= -f2 | sort | uniq -d | wc -l)" 0
check "Redis answers" redis_says PING +PONG
check "the product database answers" is "$(query PRODUCT_DATABASE_URL 'SELECT current_database()')" stockgate_product
check "the order database answers" is "$(query ORDER_DATABASE_URL 'SELECT current_user')" stockgate_order
check "what was committed is safe" is "$(query ORDER_DATABASE_URL "SELECT string_agg(setting, ',') FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')")" on,on,on
check "a server's role cannot enter the other's database" fails_with 2 "permission denied" psql -X -c 'SELECT 1' "$(setting PRODUCT_DATABASE_URL | sed 's/[a-z_]*$/stockgate_order/')"
check "the second stack, in a private folder with a long path, answers" is "$(psql -X -A -t -c 'SELECT 1' "$(two env | sed -n 's/^ORDER_DATABASE_URL=//p')")" 1
check "a file with a password is its owner's alone" is "$(stat -c %a "$first/secrets")" 600
check "no log holds a password" fails_with 1 "" grep -rqF "$(sed -n 's/^PRODUCT_DATABASE_PASSWORD=//p' "$first/secrets")" "$first"/redis/log "$first"/postgres/log "$first"/gateway/log
check "everything listens on loopback only" is "$(awk '$4 == "0A" { print $2 }' /proc/net/tcp | grep -iE ":($(cut -d= -f2 "$first/ports" | xargs -n1 printf '%04X|')ZZZZ)\$" | grep -cv '^0100007F:')" 0
pids="$(pid_of redis) $(pid_of postgres) $(pid_of gateway)"
check "starting twice is harmless" says "redis runs already" one start redis postgres gateway
check "the servers are the same" is "$(pid_of redis) $(pid_of postgres) $(pid_of gateway)" "$pids"
check "the output of env can be given to a shell" is "$(eval "$(one env)" && echo "$STACK_DIR $GATEWAY_URL")" "$first http://127.0.0.1:$(port GATEWAY_PORT)"
# shellcheck disable=SC2046
check "the output of env can be given to env" is "$(env $(one env) sh -c 'echo "$REDIS_URL"')" "redis://127.0.0.1:$(port REDIS_PORT)"
check "status names the state" says "running" one status redis
check "logs shows the end of a log" says "Ready to accept connections" one logs redis

# MARK: Kill, pause, leftovers

check "kill ends Redis" one kill redis
check "status knows" is "$(status_of redis)" stopped
check "Redis is gone" fails_with 1 "" redis_says PING +PONG
before=${EPOCHREALTIME/./}
check "Redis starts again" one start redis
printf '        in %s ms\n' $(((${EPOCHREALTIME/./} - before) / 1000))
check "Redis answers again" redis_says PING +PONG
check "nothing holds the caller's output open" timeout 60 bash -c 'output=$(STACK_DIR=$1 "$2" restart redis) && [[ $output == *"redis started"* ]]' - "$first" "$stack"

check "PostgreSQL can be paused" one pause postgres
check "status calls it paused" is "$(status_of postgres)" paused
check "a paused PostgreSQL does not answer" fails_with 2 "" env PGCONNECT_TIMEOUT=2 psql -X -c 'SELECT 1' "$(setting ORDER_DATABASE_URL)"
check "PostgreSQL goes on" one resume postgres
check "PostgreSQL answers" is "$(query ORDER_DATABASE_URL 'SELECT 1')" 1

query ORDER_DATABASE_URL 'CREATE TABLE kept (value int); INSERT INTO kept VALUES (42)' >/dev/null
check "kill ends PostgreSQL with all its processes" one kill postgres
check "PostgreSQL recovers" one start postgres
check "what was committed is there" is "$(query ORDER_DATABASE_URL 'SELECT value FROM kept')" 42

kill -9 "$(pid_of gateway)"
soon dead "$(pid_of gateway)"
check "status shows a server that died" is "$(status_of gateway)" died
check "workers that a killed gateway left are ended" says "left behind" one start gateway
check "the gateway answers" is "$(code "http://127.0.0.1:$(port GATEWAY_PORT)/")" 404

lost=$(pid_of redis)
rm "$first/redis/pid"
check "a server whose record is lost is found" says "left behind ($lost)" one start redis
check "there is one Redis again" redis_says PING +PONG

sleep 300 &
innocent=$!
disown
helpers+=("$innocent")
one kill redis >/dev/null
printf '%s 1\n' "$innocent" >"$first/redis/pid"
check "a number that belongs to another process now is not stopped" one stop redis
check "that process lives" alive "$innocent"
printf '%s 1\n' "$innocent" >"$first/redis/pid"
check "a stale record does not keep a server from starting" one start redis
check "that process still lives" alive "$innocent"

taken=$(port REDIS_PORT)
one stop redis >/dev/null
perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 1, ReuseAddr => 1) or die; sleep 300' "$taken" &
helpers+=("$!")
disown
listens() { (exec 5<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
soon listens "$taken"
check "a port that somebody else took is named, with its owner" fails_with 1 "port $taken (REDIS_PORT) is taken by process ${helpers[-1]}" one start redis
one stop >/dev/null
check "with nothing running another port is chosen" says "$taken has been taken meanwhile" one start redis
check "Redis answers on it" redis_says PING +PONG

(STACK_DIR=$work/third exec "$stack" start postgres >/dev/null 2>&1) &
killed=$!
soon test -d "$work/third/postgres/server/data.new"
kill -9 "$killed"
wait "$killed" 2>/dev/null
check "a first start that was killed is completed by the next" env STACK_DIR="$work/third" "$stack" start postgres
check "destroy" env STACK_DIR="$work/third" "$stack" destroy
check "destroy leaves no folder" test ! -e "$work/third"

# MARK: The project's servers, behind the gateway

check "two instances of both servers start" env INSTANCES=2 STACK_DIR="$first" "$stack" start
gateway=http://127.0.0.1:$(port GATEWAY_PORT)
check "PRODUCT_SERVER_URL names both" is "$(setting PRODUCT_SERVER_URL)" "http://127.0.0.1:$(port PRODUCT_PORT),http://127.0.0.1:$(port PRODUCT_2_PORT)"
check "the prefix is removed, the rest of the path untouched" says " /a%2Fb/orders?x=%20y " curl -s "$gateway/order-service/a%2Fb/orders?x=%20y"
check "a request keeps its id and its trace" says "/u/orders sale-7 00-abc-1 2" curl -s -H 'X-Request-Id: sale-7' -H 'traceparent: 00-abc-1' -d '{}' "$gateway/order-service/u/orders"
check "a request without an id gets one" is "$(curl -s "$gateway/order-service/x/orders" | grep -cE '/x/orders [0-9a-f]{32} ')" 1
check "errors of the servers pass untouched" is "$(curl -s -w '%{http_code}' -H 'X-Request-Id: r' "$gateway/order-service/refuse/orders" | sed 's/^order [0-9]* //')" '/refuse/orders r  0409'
check "a Location has the prefix" says "location: /order-service/orders/7" bash -c 'curl -si "$1" | tr A-Z a-z' - "$gateway/order-service/moved/orders"
check "both instances are used" is "$(for _ in 1 2 3 4 5 6 7 8; do curl -s "$gateway/product-service/products" | cut -d' ' -f2; echo; done | sort -u | grep -c .)" 2
check "a body of 64 KiB reaches the server" is "$(head -c 65536 /dev/zero | code --data-binary @- "$gateway/order-service/orders")" 200
check "a larger one is refused in the shape of all errors" is "$(head -c 65537 /dev/zero | curl -s -w '%{http_code}' --data-binary @- "$gateway/order-service/orders" | jq -rs '"\(.[0].error) \(.[0].details.maximumBytes) \(.[1])"')" "PAYLOAD_TOO_LARGE 65536 413"
check "products are read, not made" is "$(code "$gateway/product-service/products/7") $(code -d '{}' "$gateway/product-service/products") $(code "$gateway/product-service/products/7/stock/ledger")" "200 404 404"
check "the gateway waits longer than the longest poll" is "$(sed -n 's/.*proxy_read_timeout \(.*\);/\1/p' "$first/gateway/nginx.conf")" 60s
check "no token is in its configuration" fails_with 1 "" grep -qF "$(sed -n 's/^GATEWAY_SERVICE_TOKEN=//p' "$first/secrets")" "$first/gateway/nginx.conf"
check "none is given to the servers" is "$(curl -s "$gateway/product-service/products/tokens") $(curl -s "$gateway/order-service/tokens/orders")" " SERVICE_TOKENS= PRODUCT_SERVICE_TOKEN=  SERVICE_TOKENS= PRODUCT_SERVICE_TOKEN="
check "the stock routes are not opened beside running servers" fails_with 2 "stop gateway, product and order first" env GATEWAY_PUBLIC_STOCK=true STACK_DIR="$first" "$stack" start gateway
check "true or false" fails_with 2 "GATEWAY_PUBLIC_STOCK=yes: true or false" env GATEWAY_PUBLIC_STOCK=yes STACK_DIR="$first" "$stack" status
check "a bound that is no number is wrong usage" fails_with 2 "GATEWAY_CONNECTIONS_PER_ADDRESS=many" env GATEWAY_CONNECTIONS_PER_ADDRESS=many STACK_DIR="$first" "$stack" start gateway
# What is said of a GATEWAY_READ_TIMEOUT.
short_poll() { bash -c '. "$1/scripts/lib/common.sh" && . "$1/scripts/lib/gateway.sh" && GATEWAY_READ_TIMEOUT=$2 && gateway_settings' - "$REPOSITORY" "$1" 2>&1; }
check "a time below the longest poll is warned about" grep -q "GATEWAY_READ_TIMEOUT=30s is no longer than the longest poll" <(short_poll 30s)
check "a time above it is not" test -z "$(short_poll 30001ms)"
check "a time that is none is wrong usage" fails_with 2 "GATEWAY_READ_TIMEOUT=soon" env GATEWAY_READ_TIMEOUT=soon STACK_DIR="$first" "$stack" start gateway
check "kill product-1" one kill product-1
check "requests go to the other instance" is "$(for _ in 1 2 3 4 5 6; do code "$gateway/product-service/products"; done)" 200200200200200200
check "product-1 starts" one start product-1
returned() { [[ $(curl -s "$gateway/product-service/products") == "product $(port PRODUCT_PORT) "* ]]; }
check "it gets requests again" soon returned
one kill order-1 >/dev/null
check "a POST too goes to the other, as long as nothing was sent" is "$(for _ in 1 2 3; do code -d '{}' "$gateway/order-service/orders"; done)" 200200200
one start order-1 >/dev/null
one kill product >/dev/null
check "with no instance left the answer is 503 in the shape, with Retry-After" is "$(curl -si "$gateway/product-service/products" | tr -d '\r' | grep -cE '^HTTP/1.1 503|^Retry-After: 1|^\{"error":"UNAVAILABLE"')" 3
check "an unknown path is 404 in the shape" is "$(curl -s "$gateway/nothing" | jq -r .error)" NOT_FOUND
check "it speaks Korean when asked" says "찾을 수 없습니다" curl -s -H 'Accept-Language: ko-KR,ko;q=0.9' "$gateway/nothing"
check "a path cannot leave its prefix" is "$(code --path-as-is "$gateway/product-service/../order-service/x/orders")" 404
one stop gateway product order >/dev/null
check "the stock routes are opened, and it is said" says "GATEWAY_PUBLIC_STOCK=true: whoever reaches the gateway" env GATEWAY_PUBLIC_STOCK=true STACK_DIR="$first" "$stack" start gateway product order
check "it is remembered, and status says it" says "GATEWAY_PUBLIC_STOCK=true: whoever reaches the gateway" one status gateway
check "products are made" is "$(code -d '{}' "$gateway/product-service/products")" 200
gateway_token=$(sed -n 's/^GATEWAY_SERVICE_TOKEN=//p' "$first/secrets") order_token=$(sed -n 's/^ORDER_SERVICE_TOKEN=//p' "$first/secrets")
check "the gateway shows its token there" is "$(curl -s -X PATCH "$gateway/product-service/products/tokens")" "Bearer $gateway_token SERVICE_TOKENS=gateway:$gateway_token,order:$order_token PRODUCT_SERVICE_TOKEN="
check "the order server has its own" is "$(curl -s "$gateway/order-service/tokens/orders")" " SERVICE_TOKENS= PRODUCT_SERVICE_TOKEN=$order_token"
check "a caller's own tokens stay, once each" is "$(SERVICE_TOKENS=shop:1 setting SERVICE_TOKENS; SERVICE_TOKENS=$(SERVICE_TOKENS=shop:1 setting SERVICE_TOKENS) setting SERVICE_TOKENS)" "shop:1,gateway:$gateway_token,order:$order_token"$'\n'"shop:1,gateway:$gateway_token,order:$order_token"
check "no log holds a token" fails_with 1 "" grep -rqF -e "$gateway_token" -e "$order_token" "$first"/gateway/log "$first"/product-1/log "$first"/order-1/log
check "its configuration is its owner's alone" is "$(stat -c %a "$first/gateway/nginx.conf")" 600
one stop gateway product order >/dev/null
check "they are closed again" env GATEWAY_PUBLIC_STOCK=false STACK_DIR="$first" "$stack" start gateway product order
check "products are not made" is "$(code -d '{}' "$gateway/product-service/products")" 404
check "status says nothing of it" fails_with 1 "" bash -c 'STACK_DIR=$2 "$1" status | grep -q PUBLIC' - "$stack" "$first"
check "one instance less: the second is stopped" env INSTANCES=1 STACK_DIR="$first" "$stack" start
check "and gone" is "$(one status order-2 | awk 'NR == 2 { print $2 }')" stopped
one stop order >/dev/null
check "a server that cannot start says why" fails_with 1 "cannot reach the database" env STAND_IN_FAILS=1 STACK_DIR="$first" "$stack" start order
check "binaries that were not built are named" fails_with 1 "make build" env STOCKGATE_BIN_DIR=/nowhere STACK_DIR="$first" "$stack" start order

# MARK: RabbitMQ

check "RabbitMQ starts" one start rabbitmq
sed 's/^/        /' "$work/output"
check "its epmd and its nodes listen on loopback only" is "$(awk '$4 == "0A" { print $2 }' /proc/net/tcp | grep -iE ":($(for key in RABBITMQ_PORT EPMD_PORT RABBITMQ_DIST_PORT; do printf '%04X|' "$(port $key)"; done)ZZZZ)\$" | sort -u | grep -c '^0100007F:')" 3
pids=("$(pid_of rabbitmq)" "$(cut -d' ' -f1 "$first/epmd/epmd-pid")" "$(pid_of redis)" "$(pid_of postgres)" "$(pid_of gateway)")
mapfile -t children < <(cat /proc/[0-9]*/stat 2>/dev/null | sed 's/(.*)//' | awk -v parents=" ${pids[*]} " 'index(parents, " " $3 " ") { print $1 }')
check "the servers have children to look at" test "${#children[@]}" -gt 5

# MARK: Stores of several servers

three() { STACK_DIR=$work/third "$stack" "$@"; }
three_setting() { three env | sed -n "s/^$1=//p"; }
asked() { psql -X -q -A -t -c "$1" "$(three_setting PRODUCT_DATABASE_URL)"; }
# again_with ANSWER SERVER COMMAND…: the server starts, and the command then prints this. What the start says is shown when one of the two is not so.
again_with() {
    three start "$2" && is "$("${@:3}")" "$1"
}
third_pid() { cut -d' ' -f1 "$work/third/$1"; }
third_port() { port "$1" "$work/third"; }
# The host of a connection, as PostgreSQL names it: its port.
check "an unknown topology is wrong usage" fails_with 2 "TOPOLOGY=round: single, sentinel, cluster or ha" env TOPOLOGY=round STACK_DIR="$work/third" "$stack" env
check "two servers of PostgreSQL and a pooler start" env POSTGRES_NODES=2 STACK_DIR="$work/third" "$stack" start postgres pgbouncer
check "the addresses name both" says "@127.0.0.1:$(third_port POSTGRES_PORT),127.0.0.1:$(third_port POSTGRES_2_PORT)/stockgate_product?target_session_attrs=read-write" three_setting PRODUCT_DATABASE_URL
check "the second is the synchronous standby" is "$(asked 'SHOW synchronous_standby_names') $(asked 'SELECT inet_server_port()')" "postgres_2 $(third_port POSTGRES_PORT)"
check "the pooler leads to the databases" is "$(psql -X -q -A -t -c 'SELECT current_database()' "postgresql://stockgate_order:$(sed -n 's/^ORDER_DATABASE_PASSWORD=//p' "$work/third/secrets")@127.0.0.1:$(third_port PGBOUNCER_PORT)/stockgate_order")" stockgate_order
check "its list of passwords is its owner's alone" is "$(stat -c %a "$work/third/pgbouncer/users")" 600
check "something is committed" asked 'CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)'
check "a stack with a standby cannot lose it" fails_with 2 "PostgreSQL in $work/third has a standby" env POSTGRES_NODES=1 STACK_DIR="$work/third" "$stack" status
check "a single stack does not become another" fails_with 2 "the stack in $work/third is single" env TOPOLOGY=ha STACK_DIR="$work/third" "$stack" status
check "a primary is not promoted" fails_with 2 "postgres is the primary already" three promote postgres
former=$(third_pid postgres/pid)
check "the standby is promoted" says "postgres-2 is the primary" three promote postgres-2
check "the primary before is gone" all_dead "$former"
check "what was committed is there, and more is taken" is "$(asked 'INSERT INTO kept VALUES (2); SELECT count(*) FROM kept')" 2
check "by the second" is "$(asked 'SELECT inet_server_port()')" "$(third_port POSTGRES_2_PORT)"
check "the first comes back" three start postgres
check "as the standby of the second" is "$(asked 'SHOW synchronous_standby_names')" postgres
pooled_pids=("$(third_pid postgres/pid)" "$(third_pid postgres-2/pid)" "$(third_pid pgbouncer/pid)")
check "all of it stops" three stop
check "and leaves no process behind" all_dead "${pooled_pids[@]}"
check "it starts again as it was" again_with 3 postgres asked 'INSERT INTO kept VALUES (3); SELECT count(*) FROM kept'
check "destroy removes it" three destroy

asked_node() { redis-cli -p "$(third_port "$1")" "${@:2}"; }
asked_known() { asked_node "$1" cluster info | tr -d '\r' | grep cluster_known_nodes; }
asked_role() { asked_node "$1" role | head -n 1; }
check "a cluster of Redis starts" env TOPOLOGY=cluster STACK_DIR="$work/third" "$stack" start redis
check "the address names its six nodes" is "$(three_setting REDIS_URL | sed 's/^redis+cluster:..//' | tr ',' '\n' | sort -u | wc -l)" 6
check "three of them are masters, each with a replica" is "$(asked_node REDIS_PORT cluster nodes | grep -c master) $(asked_node REDIS_PORT cluster nodes | grep -c slave)" "3 3"
check "all slots are served" says cluster_slots_ok:16384 asked_node REDIS_6_PORT cluster info
cluster_pids=("$(third_pid redis/pid)" "$(third_pid redis-4/pid)")
check "a node is killed" three kill redis-2
check "it comes back, and knows the others" again_with cluster_known_nodes:6 redis-2 asked_known REDIS_2_PORT
check "a cluster does not become a single Redis" fails_with 2 "is cluster" env TOPOLOGY=single STACK_DIR="$work/third" "$stack" status
check "it stops" three stop
check "and leaves no node behind" all_dead "${cluster_pids[@]}"
check "it starts again as it was" again_with cluster_known_nodes:6 redis asked_known REDIS_5_PORT
check "destroy removes the cluster" three destroy

# What a sentinel says is the master's port.
master_says() { is "$(asked_node "$1" sentinel get-master-addr-by-name stockgate | tail -n 1)" "$2"; }
check "Redis with a replica and three sentinels starts" env TOPOLOGY=sentinel STACK_DIR="$work/third" "$stack" start redis
check "the address names the sentinels" is "$(three_setting REDIS_URL)" "redis+sentinel://127.0.0.1:$(third_port SENTINEL_PORT),127.0.0.1:$(third_port SENTINEL_2_PORT),127.0.0.1:$(third_port SENTINEL_3_PORT)/stockgate"
check "a failover is possible from the first moment on" says "OK 3 usable Sentinels" asked_node SENTINEL_3_PORT sentinel ckquorum stockgate
check "the second follows the first" is "$(asked_node REDIS_2_PORT role | sed -n '1p;3p' | paste -sd' ')" "slave $(third_port REDIS_PORT)"
check "the first is the master" is "$(three leader redis)" redis-1
check "one sentinel is killed" three kill sentinel-3
check "and one is paused" three pause sentinel-2
check "it goes on" three resume sentinel-2
check "the master is killed" three kill redis-1
led_by() { is "$(three leader redis)" "$1"; }
check "the replica becomes the master" soon led_by redis-2
check "the sentinels say so" soon master_says SENTINEL_PORT "$(third_port REDIS_2_PORT)"
check "the first comes back, and the sentinel" three start redis
check "as the replica" is "$(asked_node REDIS_PORT role | sed -n '1p;3p' | paste -sd' ')" "slave $(third_port REDIS_2_PORT)"
check "what the second takes the first has" is "$(asked_node REDIS_2_PORT set kept 1 >/dev/null && asked_node REDIS_2_PORT wait 1 5000)" 1
sentinel_pids=("$(third_pid redis/pid)" "$(third_pid redis-2/pid)" "$(third_pid sentinel/pid)" "$(third_pid sentinel-2/pid)" "$(third_pid sentinel-3/pid)")
check "all of it stops" three stop
check "and leaves no server behind" all_dead "${sentinel_pids[@]}"
check "the master is known while nothing runs" is "$(three leader redis)" redis-2
check "it starts again as it was" again_with master redis asked_role REDIS_2_PORT
check "destroy removes it" three destroy
check "a sentinel that there is not is wrong usage" fails_with 2 "sentinel-2: this stack has none" one kill sentinel-2

check "a package that is not there is named" is "$(bash -c 'cd "$1" && . lib/common.sh && . lib/install.sh && missing_of bash:bash none:/nowhere/none && echo "${MISSING[*]}"' - "${stack%/*}")" none
if type -P patroni >/dev/null; then
    check "PostgreSQL with a standby that takes over by itself starts" env TOPOLOGY=ha STACK_DIR="$work/third" "$stack" start postgres
    sed 's/^/        /' "$work/output"
    led_by_postgres() { is "$(three leader postgres 2>&1)" "$1"; }
    check "the first is the primary" led_by_postgres postgres-1
    check "the second is the synchronous standby" is "$(asked 'SHOW synchronous_standby_names') $(asked 'SELECT inet_server_port()')" "\"postgres-2\" $(third_port POSTGRES_PORT)"
    check "what was committed is safe" is "$(asked "SELECT string_agg(setting, ',') FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')")" on,on,on
    check "all of it listens on loopback only" is "$(awk '$4 == "0A" { print $2 }' /proc/net/tcp | grep -iE ":($(sed -nE 's/^(RAFT|POSTGRES.*)_PORT=//p' "$work/third/ports" | xargs -n1 printf '%04X|')ZZZZ)\$" | sort -u | grep -c '^0100007F:')" 7
    check "its passwords are its owner's alone" is "$(stat -L -c %a "$work"/third/{postgres,postgres-2,raft}/server/patroni.yml | sort -u)" 600
    check "nobody without the password is listened to" is "$(code -d '{}' "http://127.0.0.1:$(third_port POSTGRES_MANAGER_PORT)/restart")" 401
    check "no log holds a password" fails_with 1 "" grep -qFf <(cut -d= -f2 "$work/third/secrets") "$work"/third/{postgres,postgres-2,raft}/log
    check "something is committed" asked 'CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)'
    check "who promotes is said" fails_with 2 "Patroni makes the standby the primary" three promote postgres-2
    former=("$(third_pid postgres/pid)" "$(head -n 1 "$work/third/postgres/server/data/postmaster.pid")")
    check "the primary is killed, as a machine dies" three kill "$(three leader postgres)"
    check "its manager and its server are gone" all_dead "${former[@]}"
    check "the standby takes over" soon led_by_postgres postgres-2
    takes_more() { is "$(asked 'INSERT INTO kept VALUES (2); SELECT count(*) FROM kept')" 2; }
    check "what was committed is there, and more is taken" takes_more
    check "a pooler, which knows one server, is refused" fails_with 2 "has two that change places" three start pgbouncer
    check "the first comes back" three start postgres-1
    check "as the standby that the second waits for" is "$(asked 'SHOW synchronous_standby_names')" postgres
    check "a paused primary is one that is lost" three pause postgres-2
    check "the first takes over" soon led_by_postgres postgres-1
    check "the second goes on" three resume postgres-2
    check "and becomes the standby" three start postgres-2
    check "nothing is lost" is "$(asked 'SELECT count(*) FROM kept')" 2
    orphan=$(head -n 1 "$work/third/postgres-2/server/data/postmaster.pid")
    kill -9 "$(third_pid postgres-2/pid)"
    soon dead "$(third_pid postgres-2/pid)"
    check "a server whose manager was killed is killed too" three kill postgres-2
    check "and is gone" all_dead "$orphan"
    check "it comes back" three start postgres-2
    former=("$(third_pid postgres/pid)" "$(third_pid postgres-2/pid)" "$(third_pid raft/pid)" "$(head -n 1 "$work/third/postgres/server/data/postmaster.pid")" "$(head -n 1 "$work/third/postgres-2/server/data/postmaster.pid")")
    check "all of it stops" three stop
    check "and leaves no process behind" all_dead "${former[@]}"
    check "it starts again as it was" again_with 3 postgres asked 'INSERT INTO kept VALUES (3); SELECT count(*) FROM kept'
    check "destroy removes it" three destroy
else
    check "Patroni is installed (make test does it)" false
fi

# Two cells: a product server, a Redis and a product database each. What a stand-in is started with, and which of them gets a path.
sed 's/qw(SERVICE_TOKENS PRODUCT_SERVICE_TOKEN)/qw(PRODUCT_IDS REDIS_URL PRODUCT_DATABASE_URL PRODUCT_SERVER_URL)/' "$work/bin/product-server" >"$work/cells-server"
mkdir "$work/cell-bin" && cp "$work/cells-server" "$work/cell-bin/product-server" && cp "$work/cells-server" "$work/cell-bin/order-server" && chmod 755 "$work/cell-bin"/*
celled() { STOCKGATE_BIN_DIR=$work/cell-bin STACK_DIR=$work/third "$stack" "$@"; }
at_cells() { curl -s --max-time 60 "http://127.0.0.1:$(third_port GATEWAY_PORT)/product-service/$1"; }
started_with() { curl -s --max-time 60 "http://127.0.0.1:$(third_port "$1")/tokens"; }
check "two cells start" env CELLS=2 STOCKGATE_BIN_DIR="$work/cell-bin" STACK_DIR="$work/third" "$stack" start redis postgres gateway product order
first_cell="product $(third_port PRODUCT_PORT) " second_cell="product $(third_port PRODUCT_2_PORT) "
check "each has a Redis" is "$(three status redis | awk 'NR > 1 { print $2 }' | xargs)" "running running"
check "the second's servers have its stores and ids" says "PRODUCT_IDS=1000000- REDIS_URL=redis://127.0.0.1:$(third_port REDIS_2_PORT) PRODUCT_DATABASE_URL=$(three env | sed -n 's/^CELL_2_DATABASE_URL=//p') " started_with PRODUCT_2_PORT
check "the first's have the others" says "PRODUCT_IDS=1-999999 REDIS_URL=$(three_setting REDIS_URL) PRODUCT_DATABASE_URL=$(three_setting PRODUCT_DATABASE_URL) " started_with PRODUCT_PORT
check "the order server knows both" says "PRODUCT_SERVER_URL=1-999999=http://127.0.0.1:$(third_port PRODUCT_PORT);1000000-=http://127.0.0.1:$(third_port PRODUCT_2_PORT)" started_with ORDER_PORT
check "the settings can be read by a shell" is "$(eval "$(three env)" && printf '%s' "$PRODUCT_SERVER_URL")" "1-999999=http://127.0.0.1:$(third_port PRODUCT_PORT);1000000-=http://127.0.0.1:$(third_port PRODUCT_2_PORT)"
for path in products/5 v1/products/999999 'products/%31?x=1' cells/1-999999/products cells/1-999999/products/KEYBOARD; do
    check "$path is the first's" says "$first_cell/" at_cells "$path"
done
for path in products/1000000 'products/%31000000' cells/1000000-/v1/products cells/1000000-/readyz; do
    check "$path is the second's" says "$second_cell/" at_cells "$path"
done
for path in products products/KEYBOARD cells/2-3/products readyz; do
    check "$path is nobody's" says '"NOT_FOUND"' at_cells "$path"
done
check "products move by a setting" env MOVED_PRODUCTS=5:2 STOCKGATE_BIN_DIR="$work/cell-bin" STACK_DIR="$work/third" "$stack" restart product order
check "the gateway hears of it" celled start gateway
moved_away() { [[ $(at_cells products/5) == "$second_cell"* && $(at_cells products/55) == "$first_cell"* ]]; }
check "and routes it, and it alone" soon moved_away
check "the servers know" is "$(started_with PRODUCT_PORT | grep -o 'PRODUCT_IDS=[^ ]*') $(started_with PRODUCT_2_PORT | grep -o 'PRODUCT_IDS=[^ ]*')" "PRODUCT_IDS=1-999999,!5 PRODUCT_IDS=1000000-,5"
check "cells are no matter of a later setting" fails_with 2 "has 2" env CELLS=3 STACK_DIR="$work/third" "$stack" status
check "a product moves to no cell that there is not" fails_with 2 "MOVED_PRODUCTS=5:3" env MOVED_PRODUCTS=5:3 STACK_DIR="$work/third" "$stack" status
check "destroy removes the cells" three destroy

check "a broker of three nodes starts" env RABBITMQ_NODES=3 STACK_DIR="$work/third" "$stack" start rabbitmq
members() {
    STACK_DIR=$work/third SCRIPTS=${stack%/*} bash -c 'for library in common process ports rabbitmq; do source "$SCRIPTS/lib/$library.sh"; done
        load_ports; rabbitmq_environment "$1"; exec /usr/lib/rabbitmq/bin/rabbitmqctl -q cluster_status --formatter json' - "$1" | jq '.running_nodes | length'
}
check "they are one cluster" is "$(members rabbitmq) $(members rabbitmq-3)" "3 3"
check "the address names all three" is "$(three_setting AMQP_URL | sed 's/.*@//')" "127.0.0.1:$(third_port RABBITMQ_PORT),127.0.0.1:$(third_port RABBITMQ_2_PORT),127.0.0.1:$(third_port RABBITMQ_3_PORT)/"
nodes=("$(third_pid rabbitmq/pid)" "$(third_pid rabbitmq-2/pid)" "$(third_pid rabbitmq-3/pid)" "$(third_pid epmd/epmd-pid)")
check "the first is killed" three kill rabbitmq-1
# A node notices a moment later that another one has gone or come.
has_members() { is "$(members "$1")" "$2"; }
check "the others live" soon has_members rabbitmq-2 2
check "and their epmd" alive "${nodes[3]}"
check "it starts again" three start rabbitmq-1
check "as one of them" soon has_members rabbitmq-2 3
check "a cluster does not lose nodes by a setting" fails_with 2 "has a node 2" env RABBITMQ_NODES=1 STACK_DIR="$work/third" "$stack" status
nodes+=("$(third_pid rabbitmq/pid)")
check "the cluster stops" three stop
check "with its epmd" all_dead "${nodes[@]}"
check "destroy removes it too" three destroy

# MARK: Use, and the end

check "an unknown command is wrong usage" fails_with 2 "unknown command: dance" one dance
check "an unknown server is wrong usage" fails_with 2 "unknown server: oracle" one start oracle
check "an instance that there is not is wrong usage" fails_with 2 "INSTANCES=1" one start product-7
check "a port that is none is wrong usage" fails_with 2 "REDIS_PORT=x is no port" env REDIS_PORT=x STACK_DIR="$first" "$stack" env
check "a folder that holds something else is refused" fails_with 1 "neither empty nor the folder of a stack" env STACK_DIR="$work" "$stack" env
check "another port for a running stack is wrong usage" fails_with 2 "stop it first" env REDIS_PORT=1234 STACK_DIR="$first" "$stack" start redis
(one wait) &
waiting=$!
check "stop" one stop
check "stop leaves no process behind" all_dead "${pids[@]}" "${children[@]}"
check "wait returns" soon dead "$waiting"
check "status of a stopped stack succeeds" one status
check "stopping twice is harmless" one stop
sockets=$(cat "$second/postgres/socket-folder" 2>/dev/null)
outside=$(readlink -f "$second/postgres/server")
check "the second stack still runs" is "$(two status redis | awk 'NR == 2 { print $2 }')" running
check "destroy removes the second stack" two destroy
check "with what it had elsewhere" test ! -e "$outside" -a ! -e "${sockets:-/nowhere}"

verdicts
