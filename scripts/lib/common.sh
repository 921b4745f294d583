# shellcheck shell=bash
# shellcheck disable=SC2034 # functions answer in variables that their callers read
# Words to the terminal, time, and templates. Sourced; defines functions only.

say() { printf '%s\n' "$*"; }
warn() { printf 'stack: %s\n' "$*" >&2; }

# A failure of the machine (exit 1) or of the caller (exit 2).
die() {
    warn "$@"
    exit 1
}
usage_error() {
    warn "$@"
    warn "see: scripts/stack help"
    exit 2
}

# Milliseconds since the epoch, without starting a process. Sets NOW.
now() { NOW=$((${EPOCHREALTIME//[.,]/} / 1000)); }

# render TEMPLATE DESTINATION KEY=value…: replaces every @KEY@. The file is replaced in one step, readable by its owner only.
render() {
    local template=$1 destination=$2 text pair
    shift 2
    text=$(<"$SCRIPTS/templates/$template")
    for pair in "$@"; do
        text=${text//"@${pair%%=*}@"/"${pair#*=}"}
    done
    (umask 077 && printf '%s\n' "$text" >"$destination.new")
    mv -f "$destination.new" "$destination"
}

# 128 random bits as hexadecimal digits.
random_word() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }
