# shellcheck shell=bash
# shellcheck disable=SC2034 # functions answer in variables that their callers read
# Starting, finding and ending processes of one stack.
#
# Invariant: a signal goes only to a process that this stack started. What a server was started as is recorded in
# `<name>/pid` (its number and its start time in clock ticks since boot) by the process itself, before it becomes the server: a run of
# this script that is killed at any moment leaves no server without a record, and a number that the kernel gave to another
# process since then is not taken for the server.
# What can be left behind nevertheless (workers of a master that was killed, a record that was deleted) is found by its name
# and its working directory, which is always inside the server's folder.
# Bounds: every wait has a deadline; after it a server is killed, or the start is given up with the end of its log.

# Reads /proc/PID/stat. Sets PROC_STATE, PROC_PARENT, PROC_START.
process_stat() {
    local line fields
    { IFS= read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    read -ra fields <<<"${line##*) }"
    PROC_STATE=${fields[0]} PROC_PARENT=${fields[1]} PROC_START=${fields[19]}
}

# Whether process $1 exists and is no zombie: where nobody reaps them, killed processes stay in the table.
exists() { process_stat "$1" && [[ $PROC_STATE != [ZX] ]]; }

# Sets PID to the living process recorded in file $1, relative to the stack; fails when there is none.
live_record() {
    local file=$STACK_DIR/$1 start=
    PID=
    [[ -r $file ]] || return 1
    read -r PID start <"$file" || true
    if [[ $PID =~ ^[0-9]+$ ]] && exists "$PID" && [[ $PROC_START == "$start" ]]; then
        return 0
    fi
    PID=
    return 1
}

# Sets PID for server $1, and PROC_STATE (T when it is paused).
live() { live_record "$1/pid"; }

# launch NAME RECORD SETTER COMMAND…: starts a server in a session of its own with nothing of the caller open, and with the environment
# that the function SETTER makes there (an argument list could be read by everybody). Sets LAUNCHED.
launch() {
    local name=$1 record=$2 setter=$3
    shift 3
    (
        trap - EXIT INT TERM
        cd "$STACK_DIR/$name" || exit
        process_stat "$BASHPID"
        printf '%s %s\n' "$BASHPID" "$PROC_START" >"$record"
        for descriptor in "/proc/$BASHPID/fd"/*; do
            descriptor=${descriptor##*/}
            if ((descriptor > 2)); then eval "exec $descriptor>&-"; fi
        done
        ulimit -Sn "$(descriptor_limit)"
        "$setter" "$name"
        # A background command of a script starts with SIGINT ignored, which servers would inherit.
        exec setsid env --default-signal=INT,QUIT "$@"
    ) </dev/null >>"$STACK_DIR/$name/log" 2>&1 &
    LAUNCHED=$!
}

# Open files per server: as many as allowed, up to 65536.
descriptor_limit() {
    local hard
    hard=$(ulimit -Hn)
    if [[ $hard == unlimited ]] || ((hard > 65536)); then hard=65536; fi
    printf '%s' "$hard"
}

# Sets TREE to the descendants of process $1.
descendants() {
    local -A children=()
    local stat pid queue=("$1")
    TREE=()
    for stat in /proc/[0-9]*; do
        pid=${stat##*/}
        if process_stat "$pid"; then children[$PROC_PARENT]+=" $pid"; fi
    done
    while ((${#queue[@]})); do
        for pid in ${children[${queue[0]}]-}; do
            TREE+=("$pid")
            queue+=("$pid")
        done
        queue=("${queue[@]:1}")
    done
}

signal() {
    local name=$1
    shift
    kill "-$name" "$@" 2>/dev/null || true
}

# Stops process $1 and everything below it where they are. The parent first, so that it makes no new ones; sets TREE.
pause_tree() {
    local before=-1
    signal STOP "$1"
    descendants "$1"
    while ((${#TREE[@]} != before)); do
        before=${#TREE[@]}
        signal STOP "${TREE[@]}"
        descendants "$1"
    done
}

resume_tree() {
    descendants "$1"
    signal CONT "${TREE[@]}" "$1"
}

# Ends process $1 and everything below it, at once.
kill_tree() {
    pause_tree "$1"
    signal KILL "$1" "${TREE[@]}"
    gone 5000 "$1" "${TREE[@]}" || die "process $1 does not end even by SIGKILL"
}

# gone MILLISECONDS PID…: waits until none of them exists.
gone() {
    local deadline pid
    now
    deadline=$((NOW + $1))
    shift
    for pid in "$@"; do
        while exists "$pid"; do
            now
            ((NOW < deadline)) || return 1
            sleep 0.005
        done
    done
}

# sweep NAME: ends what is left of a server that has no living record.
sweep() {
    local directory pid comm wanted left=()
    wanted=" $(comms "$1") "
    for directory in /proc/[0-9]*; do
        { IFS= read -r comm <"$directory/comm"; } 2>/dev/null || continue
        [[ $wanted == *" $comm "* ]] || continue
        pid=${directory##*/}
        if [[ $directory/cwd -ef $STACK_DIR/$1 || $directory/cwd -ef $STACK_DIR/$1/data || $directory/cwd -ef $STACK_DIR/$1/server || $directory/cwd -ef $STACK_DIR/$1/server/data ]]; then
            exists "$pid" && left+=("$pid")
        fi
    done
    if ((${#left[@]})); then
        warn "$1: ending what an earlier run left behind (${left[*]})"
        signal KILL "${left[@]}"
        gone 5000 "${left[@]}" || die "$1: process ${left[*]} does not end even by SIGKILL"
    fi
}
