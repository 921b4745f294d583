# shellcheck shell=bash
# What the tests of scripts share: they count what held and what did not. Sourced; `work` is a folder of the test's own.

passed=0 failed=0

# verdict TEXT SAID STATUS: what the file SAID holds is shown when STATUS is not 0.
verdict() {
    if (($3 == 0)); then
        passed=$((passed + 1))
        printf 'ok      %s\n' "$1"
    else
        failed=$((failed + 1))
        printf 'FAILED  %s\n' "$1"
        sed 's/^/        | /' "$2"
    fi
}

# check TEXT COMMAND…: the command succeeds.
check() {
    local text=$1 status=0
    shift
    "$@" >"${work:?}/output" 2>&1 || status=$?
    verdict "$text" "$work/output" "$status"
}

is() { printf '%s, expected %s\n' "$1" "$2" && [[ $1 == "$2" ]]; }

# The last line of a test, and its exit status: 1 when something failed.
verdicts() {
    printf '%s passed, %s failed\n' "$passed" "$failed"
    ((failed == 0))
}
