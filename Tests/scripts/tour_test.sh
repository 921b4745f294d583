#!/usr/bin/env bash
# The tour of README.md: its commands as they stand there, twice against one stack of its own, with the servers in STOCKGATE_BIN_DIR (or .build/debug).
# Ends with `N passed, N failed`; exit status 1 when something failed.
# shellcheck disable=SC2016 # single quotes where another shell is to expand
set -uo pipefail

REPOSITORY=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd -- "$REPOSITORY" || exit 1
PATH=$PATH:/usr/sbin:/sbin
unset STACK_DIR STACK_PORTS STACK_SERVICES INSTANCES ARGS MAKEFLAGS MAKELEVEL MFLAGS "${!PG@}"
unset GATEWAY_PUBLIC_STOCK GATEWAY_CONNECTIONS_PER_ADDRESS GATEWAY_READ_TIMEOUT SERVICE_TOKENS PRODUCT_SERVICE_TOKEN
unset REDIS_PORT POSTGRES_PORT RABBITMQ_PORT EPMD_PORT RABBITMQ_DIST_PORT GATEWAY_PORT PRODUCT_PORT PRODUCT_ADMIN_PORT ORDER_PORT ORDER_ADMIN_PORT
export STOCKGATE_BIN_DIR=${STOCKGATE_BIN_DIR:-$REPOSITORY/.build/debug}
for binary in product-server order-server flash-sale; do
    if [[ ! -x $STOCKGATE_BIN_DIR/$binary ]]; then
        echo "$STOCKGATE_BIN_DIR/$binary is not there: swift build, or set STOCKGATE_BIN_DIR" >&2
        exit 1
    fi
done

work=$(mktemp -d)
chmod 755 "$work"
export STACK_DIR=$work/stack STACK_PORTS=any
# What a debug build on a busy machine needs wider than the defaults.
export GATE_TIMEOUT=500ms PRODUCT_TIMEOUT=3s ORDER_DEADLINE=8s

finish() {
    trap '' INT TERM
    scripts/stack destroy >/dev/null 2>&1
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck source=../Tests/scripts/lib/verdicts.sh
source "./Tests/scripts/lib/verdicts.sh"
# has COUNT PATTERN FILE: so many lines match.
has() {
    local count
    count=$(grep -cE -- "$2" "$3")
    printf '%s lines match %s, expected %s, in:\n' "$count" "$2" "$1"
    tail -n 120 "$3"
    [[ $count == "$1" ]]
}
hasSome() {
    tail -n 120 "$2"
    grep -qE -- "$1" "$2"
}

# The one block of shell under the heading.
awk '/^## / { inside = ($0 == "## A tour") } inside && /^```sh$/ { block = 1; next } /^```$/ { block = 0 } block' README.md >"$work/tour.sh"
check "the tour is in README.md" has 1 '^make sale .*--async' "$work/tour.sh"
check "it is a script" bash -n "$work/tour.sh"

# The tour's `curl -s` prints no newline behind an answer: each command's output begins its own line all the same.
begin=$SECONDS
scripts/stack start >"$work/start" 2>&1 || { cat "$work/start" && exit 1; }
for round in 1 2; do
    out=$work/round-$round
    # Literally: one shell reads the lines as a reader would paste them; only the answers are kept apart, by an end of line after each command.
    bash -c 'trap "echo >&2" DEBUG; set -eT -o pipefail; source "$1"' - "$work/tour.sh" >"$out" 2>&1
    check "round $round: no command of it fails" is $? 0
    # A product of that code is there the second time; at the gateway there is no decrease, ever.
    check "round $round: what is refused is what is said to be" has "$round" '"error":' "$out"
    check "round $round: the gateway has no decrease" has 1 '"error":"NOT_FOUND"' "$out"
    if ((round == 2)); then check "round 2: the code is taken" has 1 '"error":"VALIDATION_ERROR"' "$out"; fi
    # Four orders and their answers: at once, twice the same, by the user, and the one over the broker when it is asked for.
    check "round $round: every order is confirmed" has 5 '"status":"CONFIRMED"' "$out"
    check "round $round: the repeated key brings the same order" is \
        "$(grep -oE '"id":[0-9]+[^{}]*"quantity":1,[^{}]*"status":"CONFIRMED"' "$out" | head -n 2 | cut -d, -f1 | sort -u | wc -l)" 1
    check "round $round: the second decrease is a replay" hasSome '^[Ii]dempotency-[Rr]eplayed: true' "$out"
    check "round $round: the breaker has opened" hasSome '"state":"(OPEN|HALF_OPEN)"' "$out"
    check "round $round: and is closed again" hasSome '"HALF_OPEN_TO_CLOSED"' "$out"
    check "round $round: the books agree before and after the outage" has 2 '"drift":0[,}]' "$out"
    check "round $round: both sales pass their audit" has 2 '^ *AUDIT PASS ' "$out"
done
check "it ends by its own means" scripts/stack stop
printf '        in %s s\n' $((SECONDS - begin))

verdicts
